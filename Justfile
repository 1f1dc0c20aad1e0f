# `just` alone lists what there is. Everything runs in .venv; `just setup` makes it.
set shell := ["bash", "-euo", "pipefail", "-c"]

python := env("PYTHON", "python3")
bin := ".venv/bin"
stamp := ".venv/.vlakit-" + sha256(read("pyproject.toml") + read("constraints.txt"))

[private]
default:
    @{{just_executable()}} --list --unsorted

# Make .venv and install vlakit with the tested versions (about 3 minutes and 7 GB the first time, then nothing)
setup:
    @[ -e {{stamp}} ] || {{just_executable()}} _install

[private]
_install:
    @{{python}} -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vlakit needs Python 3.11 or newer: PYTHON=/path/to/python3.11 just setup" >&2; exit 1; }
    @[ -x {{bin}}/python ] || {{python}} -m venv .venv || { echo "no venv module: apt install python3-venv, or PYTHON=/path/to/another/python just setup" >&2; exit 1; }
    {{bin}}/python -m pip install --quiet --upgrade pip
    {{bin}}/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,sim,metaworld,serve,diffusion,lerobot,hdf5,zarr,quant,s3]'
    @rm -f .venv/.vlakit-* && touch {{stamp}}

# The shipped VLA on a new robot: demonstrations -> three fine-tunings -> 200 episodes each -> paired comparison (5 minutes)
demo: setup
    @{{bin}}/python experiments/demo/demo.py

# The demo, and whether its numbers lie where other seeds lie
demo-check: setup
    @{{bin}}/python experiments/demo/demo.py check

# The fast test suite, sockets blocked; arguments go to pytest
test *args: setup
    @{{bin}}/python -m pytest -q -n 2 --dist worksteal {{args}}

# Every test that this machine can run
test-all: setup
    @{{bin}}/python -m pytest -q -n 2 --dist worksteal -m "not gpu"

# Kill training, conversion, evaluation, sweep, collection, selection at random times, 20 each (--kills 2 --only training)
chaos *args: setup
    @{{bin}}/python experiments/reliability/chaos.py {{args}}

# Known holes in the pinned packages (asks PyPI about each; one that it cannot be asked about is an error)
audit: _auditors
    .venv/auditors/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

# What a release consists of as CycloneDX JSON: every package of .venv, or of another environment's python
sbom of=".venv/bin/python" out="runs/sbom.json": _auditors
    @mkdir -p "$(dirname {{out}})"
    .venv/auditors/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file {{out}} {{of}}

[private]
_auditors: setup
    @[ -x .venv/auditors/bin/pip-audit ] || {{python}} -m venv .venv/auditors
    @[ -x .venv/auditors/bin/pip-audit ] || .venv/auditors/bin/python -m pip install --quiet pip-audit cyclonedx-bom

# Execute the notebooks from the first cell to the last; what they make goes into temporary folders (5 minutes)
notebooks: setup
    {{bin}}/jupyter-execute --timeout=600 notebooks/*.ipynb

# The documentation as a site in runs/site; a broken link is an error
docs: setup
    NO_MKDOCS_2_WARNING=1 {{bin}}/mkdocs build --quiet --strict

# The budgets of the house in one table: lines, the spine, circles, CPU seconds; --tests adds the wall seconds of `just test`
house *args: setup
    @{{bin}}/python tests/house.py --measure {{args}}

# Every results.md, results.csv and picture of experiments/ again, from the committed runs
tables *names: setup
    @{{bin}}/python experiments/tables.py {{names}}

# Lint, format, types, layers
check: setup
    {{bin}}/ruff check .
    {{bin}}/ruff format --check .
    {{bin}}/pyright
    {{bin}}/lint-imports

# Mend what ruff can mend
fix: setup
    {{bin}}/ruff check --fix .
    {{bin}}/ruff format .

# Browse the recorded runs: the page of vlakit's own, once MLflow answers
ui: setup
    @{{bin}}/python -c 'from vlakit.tracking.mlflow import client; client("sqlite:///'"${VLAKIT_RUNS:-runs}"'/mlflow.db")'
    @echo "runs: http://127.0.0.1:5000/#/experiments/1/runs"
    @(sleep 8; {{bin}}/python -m webbrowser "http://127.0.0.1:5000/#/experiments/1/runs" >/dev/null 2>&1 || true) &
    {{bin}}/mlflow ui --backend-store-uri "sqlite:///${VLAKIT_RUNS:-runs}/mlflow.db"
