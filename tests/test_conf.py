"""The configuration: everything composes, nothing misspelt passes, and the scale decides what an experiment costs."""

from pathlib import Path

import pytest
import torch
from hydra import compose
from hydra.utils import instantiate

from vlakit.cli import configuration
from vlakit.cli.configuration import check_run, compose_config, single_runs, to_plain, verb_config
from vlakit.configs import FOLDERS, config_names
from vlakit.errors import ConfigError
from vlakit.models.openvla.vla import OpenVLA
from vlakit.processing.tokens import TokenProcessor
from vlakit.trees import flat

STARTS = ("cofinetune", "openvla_scratch", "random_init")  # full fine-tuning with other data or from other weights
BASELINES = {"dp": "diffusion_policy", "octo": "octo", "rt1": "rt1"}  # other families, each with its own rates
OTHER_FAMILIES = [name for name in config_names("experiment") if name.partition("_")[0] in BASELINES]
EXPERIMENTS = [name for name in config_names("experiment") if name not in OTHER_FAMILIES]
OFT = ("oft_tiny", "oft_7b")  # they choose their model, whatever the scale
# and these their rate, too
DIFFUSION = ("dp_unet", "dp_transformer", "dp_droid", "dp_matched", "dp_tiny", "dp_tiny_matched", "dp_tiny_transformer")
PREFERENCES = (  # they choose their data and how many pairs a step takes, whatever the scale
    *("dpo", "dpo_sft", "ipo", "kto", "apo_zero", "dpo_iterated"),
    *("filtered_bc", "sft_chosen", "more_sft", "dpo_length"),  # their controls
)
OTHERS = [f"{group}={name}" for group in ("debug", "hparams_search") for name in config_names(group)]
PAPER_RATES = {"lora": 5e-4, "full": 2e-5}  # openvla.md 3.5; every strategy but LoRA takes the rate of full fine-tuning


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own beside conf/."""
    for group in ("experiment", "debug", "strategy"):
        (tmp_path / "mine" / group).mkdir(parents=True)
    monkeypatch.setenv(FOLDERS, str(tmp_path / "mine"))
    return tmp_path / "mine"


def refusal(*words: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check_run("train", words)
    return caught.value


def test_the_experiments_are_the_six_strategies_a_second_rank_oft_other_starts_and_preferences() -> None:
    assert set(EXPERIMENTS) == {
        *("pretrain", "full", "last_layer", "frozen_vision", "sandwich", "lora_r32", "lora_r64"),
        *OFT,
        *STARTS,
        *PREFERENCES,
    }


def test_the_matched_diffusion_policy_differs_in_the_papers_four_keys_and_trains_from_scratch() -> None:
    """OpenVLA, Table 7: a single picture, no proprioception, no chunk, relative actions."""
    plain, matched = (flat(to_plain(compose_config("explain", [f"model={name}"]))["model"]) for name in DIFFUSION[:4:3])
    differing = {key: (plain[key], matched[key]) for key in plain.keys() | matched.keys() if plain[key] != matched[key]}
    assert differing == {
        "processor.window": (2, 1),
        "processor.proprio": (8, 0),
        "processor.horizon": (16, 1),
        "network.targets": ("absolute", "relative"),
    }
    for name in DIFFUSION:
        assert (
            compose_config("train", [f"experiment={name}", "scale=miniature", "paths.output=here"]).model.weights
            is None
        )


@pytest.mark.parametrize("scale", ["laptop", "paper"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_under_its_own_name_and_invents_no_key(experiment: str, scale: str) -> None:
    words = [f"experiment={experiment}", f"scale={scale}", "paths.output=here"]
    check_run("train", words)
    cfg = compose_config("train", words)
    assert cfg.name == experiment
    groups = {**dict.fromkeys(OFT, "lora"), **dict.fromkeys(STARTS, "full"), **dict.fromkeys(PREFERENCES, "dpo")}
    rate = groups.get(experiment, experiment.partition("_r")[0])
    assert to_plain(cfg.strategy)["optimizer"]["lr"] == cfg.lr[rate]


@pytest.mark.parametrize("scale", ["laptop", "paper"])
@pytest.mark.parametrize("experiment", OTHER_FAMILIES)
def test_a_baseline_composes_under_its_own_name_with_its_own_network(experiment: str, scale: str) -> None:
    words = [f"experiment={experiment}", f"scale={scale}", "paths.output=here"]
    check_run("train", words)
    cfg = compose_config("train", words)
    assert cfg.name == experiment
    assert cfg.model.network.kind == BASELINES[experiment.partition("_")[0]]
    assert cfg.model.weights is None


@pytest.mark.parametrize("words", OTHERS)
def test_debug_and_search_files_invent_no_key(words: str) -> None:
    check_run("train", [words])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_prepares_a_tiny_model(
    experiment: str, tiny_vla: OpenVLA, tiny_processor: TokenProcessor
) -> None:
    cfg = compose_config("train", [f"experiment={experiment}", "model=tiny"])
    policy = instantiate(cfg.strategy, network=to_plain(cfg.model.network), processor=tiny_processor, _convert_="all")
    policy.prepare(tiny_vla)
    trainable = sum(p.numel() for p in tiny_vla.parameters() if p.requires_grad)
    assert 0 < trainable <= sum(p.numel() for p in tiny_vla.parameters())
    optimizer = policy.build_optimizer([{"params": [p for p in tiny_vla.parameters() if p.requires_grad]}])
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["lr"] == cfg.strategy.optimizer.lr


def test_oft_at_the_papers_scale_is_the_released_model_with_its_head_and_senses() -> None:
    cfg = compose_config("train", ["experiment=oft_7b", "scale=paper"])
    assert (cfg.model.network.vision, cfg.model.network.llm, cfg.model.network.head) == (
        "dinosiglip_so400m",
        "llama2_7b",
        "l1",
    )
    assert (cfg.model.processor.chunk, cfg.model.processor.proprio, len(cfg.model.processor.cameras)) == (8, 8, 2)
    assert (cfg.data.batch_size, cfg.strategy.rank, cfg.strategy.alpha, cfg.strategy.optimizer.lr) == (8, 32, 16, 5e-4)


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name not in (*OFT, *PREFERENCES)])
def test_paper_scale_is_the_7b_model_in_bf16_at_the_papers_batch_and_rates(experiment: str) -> None:
    cfg = compose_config("train", [f"experiment={experiment}", "scale=paper"])
    assert cfg.data.batch_size == 16
    assert cfg.model.network == {"kind": "openvla", "vision": "siglip_so400m", "llm": "llama2_7b"}
    # Weights that train at 2e-5 need float32 masters: most of their updates round to nothing in bf16.
    precision = "bf16-true" if experiment.startswith("lora") else "bf16-mixed"
    assert (cfg.trainer.precision, cfg.trainer.accelerator) == (precision, "gpu")
    rate = PAPER_RATES.get(experiment.partition("_r")[0], PAPER_RATES["full"])
    assert cfg.strategy.optimizer.lr == rate


def test_a_single_value_for_several_says_which_there_are() -> None:
    error = refusal("experiment=full", "lr=1e-3")
    assert error.what == "'lr' holds several values"
    assert "lr.full" in error.do


def test_laptop_scale_is_the_default_and_needs_neither_gpu_nor_download() -> None:
    cfg = compose_config("train", ["experiment=lora_r32"])
    assert cfg.model.network.llm == "tiny_llama"
    assert (cfg.trainer.accelerator, cfg.data.sources) == ("cpu", {"bridge_orig": "sample"})


def test_the_command_line_beats_the_scale() -> None:
    cfg = compose_config("train", ["scale=paper", "model=tiny", "trainer=cpu", "batch_size=4", "data=bridge_sample"])
    assert (cfg.model.network.llm, cfg.trainer.accelerator, cfg.data.batch_size) == ("tiny_llama", "cpu", 4)
    assert compose_config("train", ["model=tiny", "scale=paper"]).model == cfg.model
    assert "sources" in cfg.data
    assert cfg.data.root.endswith("/sample")


def test_the_experiment_beats_the_scale_and_the_command_line_both() -> None:
    assert compose_config("train", ["experiment=lora_r32", "scale=paper"]).trainer.gradient_clip_val is None
    assert compose_config("train", ["experiment=lora_r32", "gradient_clip=3"]).trainer.gradient_clip_val == 3


def test_alpha_is_the_rank_up_to_16() -> None:
    strategy = compose_config("train", ["experiment=lora_r64"]).strategy
    assert (strategy.rank, strategy.alpha) == (64, 16)
    assert compose_config("train", ["experiment=lora_r64", "strategy.rank=8"]).strategy.alpha == 8
    assert compose_config("train", ["experiment=lora_r64", "strategy.alpha=64"]).strategy.alpha == 64


@pytest.mark.parametrize(
    ("group", "line", "key", "meant"),
    [
        ("experiment", "strategy: {rnk: 32}", "strategy.rnk", "strategy.rank"),
        ("experiment", "batchsize: 8", "batchsize", "batch_size"),
        ("debug", "trainer: {max_step: 8}", "trainer.max_step", "trainer.max_steps"),
        ("debug", "data: {agument: true}", "data.agument", "data.augment"),
    ],
)
def test_a_misspelt_key_in_a_file_is_named_with_the_nearest(
    mine: Path, group: str, line: str, key: str, meant: str
) -> None:
    file = mine / group / "mine.yaml"
    file.write_text(f"# @package _global_\ndefaults:\n  - override /strategy: lora\n\n{line}\n")
    error = refusal(f"{group}=mine")
    assert repr(key) in error.what
    assert error.where == str(file)
    assert error.do.startswith(f"did you mean {meant}")


def test_a_misspelt_group_in_a_file_is_named(mine: Path) -> None:
    file = mine / "experiment" / "mine.yaml"
    file.write_text("# @package _global_\ndefaults:\n  - override /strategy: loar\n")
    error = refusal("experiment=mine")
    assert error.what == "strategy=loar does not exist"
    assert error.do.startswith("did you mean lora")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["sead=3"], "seed"),
        (["mdoel=tiny"], "model"),
        (["scael=paper"], "scale"),
        (["model.wieghts=x.ckpt"], "model.weights"),
        (["experiment=lora_r32", "strategy.rnk=8"], "strategy.rank"),
        (["experiment=lora_r32", "strategy.optimizer.wd=0"], "strategy.optimizer"),
        (["scale=paper", "trainer.max_step=8"], "trainer.max_steps"),
        (["experiment=lora_r23"], "lora_r32"),
        (["scale=papr"], "paper"),
        (["strategy=lor"], "lora"),
        (["optimizer=adamw"], "optimizer@strategy.optimizer"),
    ],
    ids=str,
)
def test_a_misspelt_word_of_the_command_line_is_named_with_the_nearest(words: list[str], meant: str) -> None:
    error = refusal(*words)
    assert meant in error.do.split("?")[0]
    assert words[-1].partition("=")[0].lstrip("+") in f"{error.what} {error.where}"


@pytest.mark.parametrize("word", ["steps", "--foo", "steps=[1", "experiment=", "experiment=null"])
def test_a_word_that_cannot_be_used_is_refused_with_advice(word: str) -> None:
    error = refusal(word)
    assert error.where
    assert error.do


@pytest.mark.parametrize("data", ["bridge", "bridge_sample", "tabletop_mixture"])
def test_a_mixture_on_the_command_line_is_the_whole_mixture(data: str) -> None:
    words = [f"data={data}", "data.mixture={my_robot: 1}", "data.sources={my_robot: DIR}"]
    check_run("train", words)
    cfg = compose_config("train", words)
    assert (cfg.data.mixture, cfg.data.sources) == ({"my_robot": 1}, {"my_robot": "DIR"})
    check_run("train", [f"data={data}", "data.mixture=my_robot"])
    assert compose_config("train", [f"data={data}", "data.mixture=my_robot"]).data.mixture == "my_robot"


def test_a_mixture_of_an_experiment_is_the_whole_mixture(mine: Path) -> None:
    text = "# @package _global_\ndata: {mixture: {my_robot: 1}, sources: {my_robot: DIR}}\ntags: {robot: widowx}\n"
    (mine / "experiment" / "mine.yaml").write_text(text)
    check_run("train", ["experiment=mine"])
    assert compose_config("train", ["experiment=mine"]).data.mixture == {"my_robot": 1}


def test_a_dataset_that_no_mixture_has_yet_is_added_or_given_whole(mine: Path) -> None:
    error = refusal("data=tabletop_mixture", "data.mixture.my_robot=1")
    assert "+data.mixture.my_robot=VALUE" in error.do
    assert "data.mixture={NAME: VALUE}" in error.do
    (mine / "data").mkdir()
    (mine / "data" / "pictures.yaml").write_text("_target_: builtins.dict\n")  # data that know no mixture
    assert refusal("data=pictures", "data.mixture={a: 1}").what == "'data.mixture' is no key of the configuration"


@pytest.mark.parametrize("verb", ["train", "explain", "plan", "bench"])
def test_a_strategy_without_a_rate_of_its_own_takes_that_of_full(mine: Path, verb: str) -> None:
    text = "defaults: [_finetune, _self_]\ntrainable: ['projector.*']\n"
    (mine / "strategy" / "mine.yaml").write_text(text)
    cfg = compose_config(verb, ["strategy=mine", "lr.full=0.125"])
    assert (cfg.strategy.optimizer.lr, cfg.strategy.trainable) == (0.125, ["projector.*"])
    assert "_finetune" not in config_names("strategy")


def test_deleting_a_key_that_is_not_there_names_the_nearest() -> None:
    assert refusal("~data.root_").do.startswith("did you mean data.root")


def test_free_words_for_the_record_may_be_added() -> None:
    check_run("train", ["+tags.robot=widowx", "experiment=full"])


def test_a_sweep_is_checked_value_by_value() -> None:
    assert single_runs(["experiment=full,lora_r32", "seed=0,1", "steps=3"]) == [
        ["experiment=full", "seed=0", "steps=3"],
        ["experiment=lora_r32", "seed=0", "steps=3"],
        ["experiment=full", "seed=1", "steps=3"],
    ]
    check_run("train", ["experiment=full,lora_r32", "seed=0,1"])


def test_a_key_may_be_one_of_the_experiment_that_the_search_file_sweeps() -> None:
    check_run("train", ["hparams_search=lora_rank", "strategy.rank=2,8"])
    assert "strategy.rank" in refusal("hparams_search=lora_rank", "experiment=full", "strategy.rank=2").what
    assert refusal("hparams_search=lora_ranks").do.startswith("did you mean lora_rank")


def test_an_impossible_value_of_a_sweep_is_named() -> None:
    assert refusal("experiment=full,lora_r23", "seed=0,1").do.startswith("did you mean lora_r32")
    assert "strategy.rank" in refusal("experiment=lora_r32,full", "strategy.rank=8").what


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("seed=range(3)", ["0", "1", "2"]),
        ("seed=choice(0,1)", ["0", "1"]),
        ("lr.full=interval(0,4)", ["0.0", "4.0"]),
        ("experiment=glob(lora*)", ["lora_r32", "lora_r64"]),
    ],
)
def test_the_ways_to_write_a_sweep_are_all_read(word: str, values: list[str]) -> None:
    assert [run[0].partition("=")[2] for run in single_runs([word])] == values


@pytest.mark.parametrize("model", ["tiny", "siglip_7b", "openvla_7b"])
@pytest.mark.parametrize("strategy", config_names("strategy"))
def test_every_strategy_can_be_explained_on_every_model(strategy: str, model: str) -> None:
    cfg = compose_config("explain", [f"strategy={strategy}", f"model={model}"])
    assert to_plain(cfg)["strategy"]["_target_"].startswith("vlakit.strategies.")


@pytest.mark.parametrize("verb", ["shards", "evaluate", "score", "compare"])
def test_a_misspelt_key_of_a_verb_is_named_with_the_nearest(verb: str) -> None:
    with pytest.raises(ConfigError, match=f"'formt' is no key of vlakit {verb}") as caught:
        verb_config(verb, ["formt=json"])
    assert "did you mean format" in caught.value.do


def test_a_value_that_must_be_given_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="'ckpt'") as caught:
        verb_config("evaluate", [])
    assert "ckpt=" in caught.value.do


def test_checking_a_run_with_an_experiment_composes_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(configuration, "compose", lambda name, *a, **k: names.append(name) or compose(name, *a, **k))
    check_run("train", ["experiment=lora_r32", "seed=1"])
    assert len(names) == 3
