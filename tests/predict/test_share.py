"""What goes to others: a model with its card, to a hub too, and a run's results without weights, images and names."""

from dataclasses import replace

import numpy as np
import pytest

from raypatch.analysis.card import compose_card, write_card
from raypatch.analysis.report import prepare_report
from raypatch.config import RunOptions
from raypatch.predict import export_trial, find_trials, timm_loads
from raypatch.predict.share import export_results, upload
from raypatch.results import SweepPaths, read_predictions, read_sweep
from raypatch.sweep.run import ExecutorOptions, run_sweep

from hub import StandIn
from tiny import make_images, tiny_study


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("share")
    with np.load(make_images(folder / "plain.npz")) as stored:
        arrays = dict(stored)
    who = np.array([f"Ann {place % 2}{place // 4}" for place in range(12)])
    np.savez(folder / "own.npz", **arrays, test_patients=who, test_ids=who, class_names=np.array(["benign", "<b>"]))
    study = tiny_study(folder / "own.npz", seed=[0, 1])
    run_sweep(study, folder / "run", RunOptions(device="cpu", threads=1), ExecutorOptions(executor="local"))
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "model"
    member = find_trials(run).trials[0]
    export_trial(run, member.result.trial_id, out)
    write_card(member, out, "apache-2.0")
    return out


def test_a_card_says_data_patients_scores_limits_licence_and_how_to_load(run, exported):
    text = (exported / "README.md").read_text()
    assert text.startswith("---\nlicense: apache-2.0\nlibrary_name: timm\n")
    for said in ("| patients", "balanced accuracy", "no medical device", "| Licence", "load_exported"):
        assert said in text, said
    # A class of that name must not become part of the page.
    assert "&lt;b&gt;" in (exported / "card.html").read_text()
    member = find_trials(run).trials[0]
    (row,) = [row for row in compose_card(member).main.data.to_dict("records") if row["metric"] == "accuracy"][:1]
    assert row["mean"] == pytest.approx(member.result.test["accuracy"], abs=1e-6)
    assert row["low"] < row["mean"] <= row["high"]


def test_a_card_without_licence_says_so(run):
    card = compose_card(find_trials(run).trials[0])
    facts = dict(card.sections[0].tables[0].data.to_numpy().tolist())
    assert facts["Licence"] == "not stated"


def test_an_exported_model_goes_to_a_hub(exported):
    with StandIn() as hub:
        address = upload(exported, "me/model", {"HF_TOKEN": "hf_secret", "HF_ENDPOINT": hub.address})
    assert sorted(hub.files) == ["README.md", "card.html", "config.json", "model.safetensors"]
    assert hub.files["model.safetensors"] == (exported / "model.safetensors").read_bytes()
    assert hub.repos[0]["visibility"] == "private"
    assert hub.tokens == {"Bearer hf_secret"}
    assert "me/model" in address


def test_a_hub_that_refuses_is_told(exported):
    with StandIn(refuse=True) as hub, pytest.raises(ValueError, match="the hub did not take me/model"):
        upload(exported, "me/model", {"HF_TOKEN": "hf_secret", "HF_ENDPOINT": hub.address})


@pytest.mark.parametrize("name", ["model", "a/b/c", "/model"])
def test_a_name_that_is_none_of_a_hub_is_refused(exported, name):
    with pytest.raises(ValueError, match="OWNER/NAME"):
        upload(exported, name, {"HF_TOKEN": "hf_secret"})


def test_no_upload_without_a_token(exported, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ValueError, match="HF_TOKEN"):
        upload(exported, "me/model", {})


def test_results_without_weights_and_names_give_the_same_report(run, tmp_path):
    out, trials = export_results(run, tmp_path / "results")
    assert trials == 4
    suffixes = {path.suffix for path in out.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".jsonl", ".npz", ".yaml"}
    for path in out.rglob("*"):
        assert not path.is_file() or b"Ann " not in path.read_bytes()
    assert read_sweep(SweepPaths(out).record).options.get("files") is None
    ours, theirs = (prepare_report([folder], resamples=50) for folder in (run, out))
    assert ours.main.data.drop(columns="folder", errors="ignore").equals(theirs.main.data)
    assert [statement.verdict for statement in ours.statements] == [said.verdict for said in theirs.statements]


def test_names_are_kept_where_that_is_asked(run, tmp_path):
    out, _ = export_results(run, tmp_path / "results", with_names=True)
    predictions = read_predictions(SweepPaths(out).trial_folders()[0].predictions, "test")
    assert predictions.group[0] == "Ann 00"


def test_a_folder_with_something_in_it_is_not_written_into(run, tmp_path):
    (tmp_path / "old").write_text("mine")
    with pytest.raises(ValueError, match="is there already"):
        export_results(run, tmp_path)
    with pytest.raises(ValueError, match="no run folder"):
        export_results(tmp_path, tmp_path / "new")


def test_a_card_counts_a_rare_class_as_its_table_does(run):
    card = compose_card(find_trials(run).trials[0])
    counts = card.sections[1].tables[0].data.set_index("class").loc["benign", ["train", "val", "test"]].astype(int)
    assert f"Rare in the data: benign, {counts.sum()} images in all; what is said of it is uncertain." in card.notes


def test_timm_is_named_only_where_it_loads_the_model(run):
    member = find_trials(run).trials[0]
    assert timm_loads(member)
    volumes = replace(member, dataset=member.dataset.model_copy(update={"dimensions": 3}))
    mlp = replace(member, config=member.config.model_copy(update={"head": "mlp"}))
    assert not timm_loads(volumes)
    assert not timm_loads(mlp)
