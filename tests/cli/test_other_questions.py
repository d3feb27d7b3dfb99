"""The shipped studies of other questions run from the command line to a report that speaks of their own factor."""

from pathlib import Path

import pytest

from commands import Command
from tiny import make_images

SMALL = ("--weights", "random", "--seed", "0,1", "--executor", "local", "--device", "cpu", "--cpus-per-trial", "1")
QUICK = ("--set", "epochs=2", "--set", "warmup_epochs=0", "--set", "batch_size=8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "words", "question", "trials"),
    [
        ("method", ("--model", "test_vit", "--patch-size", "4"), "Which training method?", 4),
        (
            "data_fraction",
            ("--model", "test_vit", "--patch-size", "4", "--set", "train_fraction=0.5,1.0"),
            "Which share of the training images?",
            4,
        ),
        (
            "patch_and_model",
            ("--model", "test_vit,test_vit2", "--patch-size", "8,4"),
            "Which patch size, and which model?",
            8,
        ),
    ],
)
def test_a_study_answers_its_own_question(
    raypatch: Command, tmp_path: Path, study: str, words: tuple[str, ...], question: str, trials: int
) -> None:
    data = str(make_images(tmp_path / "own.npz", count=48))
    code, out, err = raypatch("run", study, "--name", "it", "--dataset", data, *words, *SMALL, *QUICK)
    assert code == 0, err
    assert f"{trials} trials done, 0 failed, 0 left" in out
    assert question in raypatch("runs")[1]
    code, _, err = raypatch("report", "runs/it", "--format", "md")
    assert code == 0, err
    text = (tmp_path / "runs" / "it" / "report" / "report.md").read_text("utf-8")
    assert question.rstrip("?") in text
    before_the_method_section = text.lower().split("## method\n")[0]
    assert ("patch size" in before_the_method_section) == ("patch" in study)
