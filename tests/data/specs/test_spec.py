"""The shipped specs and mixtures are complete and say what OpenVLA's do; a misspelt one says what is wrong."""

from pathlib import Path

import pytest
import yaml
from places import FIXTURES

from vlakit.configs import conf_root, config_names
from vlakit.data.specs.spec import fingerprint, load_mixture, load_spec, spec_names
from vlakit.errors import ConfigError, UnknownName

DENOMINATOR = 16.06e6  # weight x transitions over the whole mixture, with which all printed shares come out
SHARES = {
    "bridge_orig": 13.30,
    "kuka": 12.76,
    "fractal20220817_data": 12.75,
    "bc_z": 7.49,
    "fmb_dataset": 7.08,
    "stanford_hydra_dataset_converted_externally_to_rlds": 4.46,
    "taco_play": 2.96,
    "furniture_bench_dataset_converted_externally_to_rlds": 2.46,
    "roboturk": 2.34,
    "utaustin_mutex": 2.25,
    "austin_sailor_dataset_converted_externally_to_rlds": 2.20,
    "toto": 2.03,
    "austin_sirius_dataset_converted_externally_to_rlds": 1.74,
    "dobbe": 1.42,
    "berkeley_autolab_ur5": 1.22,
}
MINE = """
images: {primary: front}
language: task
action: [{take: action, cols: [0, 6]}, {take: action, cols: [-1, null], ops: [clip01, invert]}]
proprio: [joints, null]
"""


@pytest.fixture
def write(tmp_path):
    def write_spec(text: str, name: str = "mine.yaml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write_spec


MIXTURES = config_names("mixture")
PUBLISHED = [name for name in spec_names() if not name.startswith(("metaworld_", "tabletop_"))]  # not made by vlakit


def test_all_44_datasets_load_under_their_file_names():
    assert len(PUBLISHED) == 44
    assert [load_spec(name).name for name in spec_names()] == spec_names()


def test_every_recorded_transform_has_a_spec():
    assert [file.stem for file in sorted((FIXTURES / "oxe_transforms").glob("*.npz"))] == PUBLISHED


@pytest.mark.parametrize("name", spec_names())
def test_spec_files_are_short_and_say_what_they_are(name):
    lines = (conf_root() / "dataset" / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", spec_names())
def test_published_bounds_fit_the_action_and_are_in_order(name):
    spec = load_spec(name)
    q01, q99 = spec.published.q01, spec.published.q99
    assert (q01 is None) == (q99 is None)
    if q01 and q99:
        assert len(q01) == len(q99) == spec.width
        assert all(low <= high for low, high in zip(q01, q99, strict=True))


def test_bridge_is_what_the_released_checkpoint_says():
    bridge = load_spec("bridge_orig")
    q01 = (-0.028727253, -0.0417035, -0.026093859, -0.080921051, -0.092886995, -0.207182764, 0)
    q99 = (0.028309678, 0.040855255, 0.040161587, 0.081920478, 0.077928505, 0.203825745, 1)
    assert bridge.published.q01 == pytest.approx(q01, abs=1e-8)
    assert bridge.published.q99 == pytest.approx(q99, abs=1e-8)
    assert (bridge.published.num_trajectories, bridge.published.num_transitions) == (60064, 2135463)
    assert (bridge.drop_first_steps, bridge.post) == (1, ("relabel_motion_from_state",))


def test_the_gripper_is_absolute_and_not_normalised():
    spec = load_spec("kuka")
    assert spec.mask == (True,) * 6 + (False,)
    assert spec.absolute_action_mask == (False,) * 6 + (True,)


def test_keys_are_the_fields_that_a_reader_must_decode():
    assert load_spec("bridge_orig").keys() == [
        "action",
        "language_instruction",
        "observation/image_0",
        "observation/image_1",
        "observation/state",
    ]
    assert load_spec("roboturk").keys()[3:] == ["observation/front_rgb", "observation/natural_language_instruction"]


def test_a_post_op_brings_the_fields_it_reads(write):
    file = write(MINE + "post: [relabel_motion_from_state]")
    assert load_spec(file).keys() == ["action", "observation/front", "observation/joints", "observation/state", "task"]


@pytest.mark.parametrize("name", MIXTURES)
def test_every_dataset_of_a_mixture_exists(name):
    mixture = load_mixture(name)
    assert mixture.name == name
    assert set(mixture.datasets) <= set(spec_names())


def test_mixtures_have_the_sizes_and_weights_of_openvla():
    sizes = {"bridge": 1, "bridge_rt_1": 2, "oxe_magic_soup": 23, "oxe_magic_soup_plus": 27}
    sizes |= {"oxe_magic_soup_plus_minus": 25, "rtx": 10, "rtx_franka": 24, "libero_4_task_suites_no_noops": 4}
    assert {name: len(load_mixture(name).datasets) for name in sizes} == sizes
    plus, minus = load_mixture("oxe_magic_soup_plus").datasets, load_mixture("oxe_magic_soup_plus_minus").datasets
    assert (plus["fractal20220817_data"], minus["fractal20220817_data"]) == (0.54087122203, 1.0)
    assert (plus["kuka"], plus["droid"], plus["bc_z"]) == (0.8341046294, 0.06, 0.2)
    assert set(plus) - set(minus) == {"droid", "language_table"}
    assert load_mixture("rtx_franka").datasets["cmu_franka_exploration_dataset_converted_externally_to_rlds"] == 5.0
    assert sorted(sizes) == MIXTURES
    single = [f"tdroid_{task}" for task in ("pour_corn_in_pot", "flip_pot_upright", "carrot_in_bowl")]
    single += [f"tdroid_{task}" for task in ("cover_object_with_towel", "knock_object_over", "move_object_onto_plate")]
    single += ["droid_wipe", *(f"libero_{tasks}_no_noops" for tasks in ("spatial", "object", "goal", "10"))]
    assert [load_mixture(name).datasets for name in single] == [{name: 1.0} for name in single]


@pytest.mark.parametrize("name", SHARES)
def test_weight_times_transitions_gives_the_share_printed_in_table_3(name):
    printed = yaml.safe_load((FIXTURES / "paper_tables.yaml").read_text(encoding="utf-8"))["table3"][name]
    transitions = load_spec(name).published.num_transitions
    share = 100 * load_mixture("oxe_magic_soup_plus").datasets[name] * (transitions or 0) / DENOMINATOR
    assert share == pytest.approx(SHARES[name], abs=0.01)
    assert share == pytest.approx(printed, abs=0.1)


def test_a_dataset_is_a_mixture_of_itself():
    assert load_mixture("tabletop_target").datasets == {"tabletop_target": 1.0}
    assert list(load_mixture("bridge").datasets) == ["bridge_orig"]


def test_a_spec_of_ones_own_loads_from_its_path(write):
    spec = load_spec(write(MINE))
    assert (spec.name, spec.width, spec.proprio) == ("mine", 7, ("joints", None))


def test_an_action_of_another_size_brings_its_own_masks(write):
    masks = "mask: [true, true, false]\nabsolute_action_mask: [false, false, true]\n"
    assert load_spec(write(MINE + masks)).width == 3
    with pytest.raises(ConfigError, match="differ in length"):
        load_spec(write(MINE + "mask: [true, true, false]"))


def test_an_unknown_dataset_names_the_nearest():
    with pytest.raises(UnknownName, match="did you mean bridge_orig"):
        load_spec("bridge_origg")
    with pytest.raises(UnknownName, match="oxe_magic_soup_plus"):
        load_mixture("oxe_magic_soup_pluss")
    with pytest.raises(UnknownName, match="no file"):
        load_spec("nowhere/mine.yaml")


WRONG = {
    "top_key": ("drop_first_step: 1", "unknown key 'drop_first_step'", "drop_first_steps"),
    "camera": ("depth: {primry: depth}", "unknown key 'primry'", "primary"),
    "segment_key": ("observation: {joints: [{tke: state}]}", "unknown key 'tke'", "take"),
    "op": ("observation: {joints: [{take: state, ops: [clip1]}]}", "no column op called 'clip1'", "clip01"),
    "post_op": ("post: [relabel_motion]", "no post op called 'relabel_motion'", "relabel_motion_from_state"),
    "encoding": ("action_encoding: EEF_PSO", "unknown value 'EEF_PSO'", "EEF_POS"),
    "encoding_type": ("action_encoding: [EEF_POS]", "key 'action_encoding'", ""),
    "number": ("drop_first_steps: -1", "key 'drop_first_steps'", ""),
    "cols": ("observation: {joints: [{take: state, cols: [1]}]}", "expected [start, stop]", "null"),
    "two_sources": ("observation: {joints: [{take: state, zeros: 1}]}", "one of take, zeros, ones", ""),
    "no_segment": ("observation: {joints: []}", "expected a list of {take", ""),
    "published": ("published: {q1: [0]}", "unknown key 'q1'", "q01"),
    "twice": ("language: other", "language given twice", ""),
    "no_yaml": ("post: [", "not readable as YAML", ""),
}


@pytest.mark.parametrize(("line", "what", "hint"), WRONG.values(), ids=WRONG)
def test_a_wrong_spec_names_file_problem_and_remedy(write, line, what, hint):
    with pytest.raises(ConfigError) as caught:
        load_spec(write(MINE + line))
    assert what in caught.value.what
    assert caught.value.where.endswith("mine.yaml")
    assert hint in caught.value.do


@pytest.mark.parametrize("text", ["", "- a", "images: {primary: front}\nlanguage: task"])
def test_a_spec_without_its_required_keys_is_refused(write, text):
    with pytest.raises(ConfigError):
        load_spec(write(text))


@pytest.mark.parametrize("text", ["datasets: {}", "datasets: {toto: 0}", "datasets: {toto: a}", "dataset: {toto: 1}"])
def test_a_mixture_needs_datasets_of_positive_weight(write, text):
    with pytest.raises(ConfigError):
        load_mixture(write(text))


def test_fingerprint_follows_the_transform_and_not_the_notes(write):
    plain = fingerprint(load_spec(write(MINE)))
    assert fingerprint(load_spec(write(MINE + "gripper: stored\npublished: {num_trajectories: 3}"))) == plain
    assert fingerprint(load_spec(write(MINE.replace("clip01, ", "")))) != plain
    assert len({fingerprint(load_spec(name)) for name in spec_names()}) == len(spec_names())
