"""Studies that cannot be answered are refused with the way out, exit code 2, before anything starts."""

from pathlib import Path

import pytest

from commands import Command

HEAD = "name: bad\nfixed: {dataset: phantom2d, model: test_vit, weights: random}\n"


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("compare: patch\ngrid: {patch_size: [14, 7]}", "compare: unknown field 'patch'; did you mean patch_size"),
        ("compare: patch_size\ngrid: {patch_size: [14]}", "compare: patch_size has one level, 14; give two"),
        ("compare: patch_size\ngrid: {patch_size: [14, '14']}", "compare: patch_size has one level, 14; give two"),
        ("compare: method\ngrid: {patch_size: [14, 7]}", "compare: method is no axis of the grid; list its levels"),
        ("compare: dataset\ngrid: {patch_size: [14, 7]}", "compare: dataset is what the comparison is repeated over"),
        ("compare: [lr, lr]\ngrid: {patch_size: [14], lr: [1, 2]}", "compare: lr, lr names a factor twice"),
        (
            "compare: lr\ngrid: {patch_size: [14]}\nsearch: {fields: {lr: {loguniform: [1.0e-6, 1.0e-3]}}}",
            "compare: lr is searched, so its levels are not compared",
        ),
        (
            "compare: size\ngrid: {patch_size: [14], size: {a: {lr: 0.1}, b: {lr: 0.1}}}",
            "the levels a and b of size are the same trial for phantom2d; give them fields that differ",
        ),
        (
            "compare: size\ngrid: {lr: [1, 2], size: {a: {lr: 0.1}, b: {lr: 0.2}}}",
            "lr: the axes lr and size both set it; keep it in one of them",
        ),
        (
            "compare: method\ngrid: {patch_size: [7], method: {tuned: {epochs: 5}, frozen: {method: linear_probe}}}",
            "the axis method names its levels, but method is a field, whose levels are its values; give the axis",
        ),
        (
            "compare: size\ngrid: {size: {a: {dataset: derma}, b: {dataset: breast}}}",
            "the levels of size set dataset; that is an axis of its own",
        ),
        (
            "compare: patch_size\nbaseline: 28\ngrid: {patch_size: [14, 7]}",
            "baseline: 28 is no level of patch_size; it has 14, 7",
        ),
        (
            "compare: patch_size\nbaseline: 7\ngrid: {patch_size: [14, 7, 4]}\n"
            "when: [{if: {patch_size: 7}, skip: true}]",
            "baseline: a when-rule skips every trial of patch_size 7; name another level, one of 14, 4",
        ),
        (
            "compare: [patch_size, lr]\nbaseline: 14\ngrid: {patch_size: [14, 7], lr: [1, 2]}",
            "baseline: several factors are compared; name one by factor",
        ),
        (
            "compare: patch_size\nbaseline: {lr: 1}\ngrid: {patch_size: [14, 7]}",
            "baseline: unknown field 'lr'; there are patch_size",
        ),
        ("compare: size\ngrid: {patch_size: [14], size: {a: {lrr: 1}, b: {lr: 2}}}", "unknown field 'lrr'; did you"),
    ],
)
@pytest.mark.parametrize("command", ["run", "study"])
def test_what_cannot_be_compared_is_refused(
    raypatch: Command, tmp_path: Path, command: str, study: str, message: str
) -> None:
    (tmp_path / "bad.yaml").write_text(HEAD + study + "\n")
    code, out, err = raypatch(command, "bad.yaml")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_a_field_that_named_levels_set_is_not_overridden(raypatch: Command) -> None:
    code, _, err = raypatch("study", "model_size", "--set", "lr=1e-3")
    assert code == 2
    assert "lr is set by the levels of model_size: choose among these with --set model_size=ViT-Ti" in err


def test_a_level_that_there_is_not_is_refused_with_those_there_are(raypatch: Command) -> None:
    code, _, err = raypatch("study", "model_size", "--set", "model_size=ViT-L")
    assert code == 2
    assert "'ViT-L' is no level of model_size; it has ViT-Ti, ViT-S, ViT-B" in err


def test_narrowing_to_one_level_is_a_try_out_and_allowed(raypatch: Command) -> None:
    assert raypatch("study", "grid", "--dataset", "breast", "--patch-size", "14")[0] == 0
