"""The report: the answer, what was left out, and files that stand on their own."""

import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from raypatch.analysis.answer.findings import conclude
from raypatch.analysis.frames.load import load_study
from raypatch.analysis.report import prepare_report, write_report
from raypatch.analysis.report_parts import report_latex
from raypatch.analysis.show.page.page import render_page
from raypatch.analysis.statistics.stacks import load_predictions
from raypatch.config import TrialConfig
from raypatch.data.catalog import DatasetInfo
from raypatch.factors import factor_of_field
from raypatch.results import Predictions, SweepPaths, write_predictions

from browser import Browser, find_chromium
from made_runs import (
    GRID,
    PATCH_SIZES,
    STUDIES,
    made_config,
    made_configs,
    write_failed_trial,
    write_run,
    write_study,
    write_sweep,
    write_trial,
)

DATASETS = ["breastmnist", "retinamnist", "vesselmnist3d", "adrenalmnist3d"]
EXPECTED = (
    {"says": "The paper states up to 12.78 % in 2D", "source": "a paper", "datasets": GRID[:7]},
    {"says": "Other data gave 99 %", "source": "a paper", "datasets": ("bloodmnist",)},
)
EVIL = ("<script>alert(1)</script>", "a & b $x_1$ 50%", "ä|ö")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "study"
    configs = made_configs(DATASETS, [14, 4, 2, 1], 2, epochs=4)
    factor = factor_of_field("patch_size", [14, 4, 2, 1])
    write_sweep(folder, configs, factors=[factor], expect=EXPECTED)
    for config in configs:
        write_trial(folder, config, images=80)
    return folder


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    return write_report([run], tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(written):
    return (written.folder / "report.html").read_text("utf-8")


def test_files_that_were_promised_exist_and_nothing_else(written):
    assert written.files[0].name == "report.html"
    assert set(written.files) == {path for path in written.folder.rglob("*") if path.is_file()}
    figures = {path.suffix for path in written.files if path.parent.name == "figures"}
    assert figures == {".csv", ".svg", ".pdf", ".png"}
    assert all(path.stat().st_size > 20 for path in written.files)


def test_page_opens_with_the_answer_and_states_beside_it_what_a_paper_found_on_these_datasets(page):
    text = re.sub(r"<[^>]+>", " ", page)
    assert text.index("patch size 14 cannot be told apart by balanced accuracy") < text.index("bACC by patch size")
    assert text.count("The paper states up to 12.78 % in 2D (a paper).") == 1
    assert "Other data gave" not in text


def test_page_names_nothing_outside_itself(page):
    links = re.findall(r'\b(?:href|src|action|data|poster|srcset)="([^"]*)"', page)
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "<script" not in page
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)
    addresses = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert "http://" not in addresses
    assert "https://" not in addresses


def test_ids_are_unique(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_markdown_and_latex_hold_every_table(written):
    markdown = (written.folder / "report.md").read_text("utf-8")
    latex = (written.folder / "tables.tex").read_text("utf-8")
    for title in (
        "bACC by patch size, 2D",
        "AUC by patch size, 3D",
        "Ensembles of patch sizes",
        "Gain in balanced accuracy",
    ):
        assert title in markdown
        assert title in latex
    for name in re.findall(r"\]\((figures/[^)]+)\)", markdown):
        assert (written.folder / name).is_file()


def test_printed_text_has_the_answer_and_the_main_table(written):
    assert written.text.startswith("2D: No difference shown in any of 2 datasets: patch size")
    assert "| 1+2+4 " in written.text


def test_choice_is_made_on_validation_and_worth_is_read_from_test(run):
    study = load_study(run)
    trials = study.trials
    two = trials["dimensions"] == 2
    trials.loc[two & (trials["patch_size"] == 4), "val_balanced_accuracy"] = 0.999
    trials.loc[two & (trials["patch_size"] == 2), "test_balanced_accuracy"] = 1.0
    flat = next(setting for setting in conclude(study, resamples=50).conclusions if setting.label == "2D")
    assert flat.answer.chosen == "4"
    assert set(flat.gains["chosen"]) == {"4"}
    assert set(flat.gains["best"]) == {"2"}
    means = trials[two].groupby(["dataset", "patch_size"])["test_balanced_accuracy"].mean().unstack()
    assert flat.answer.gain[0] == pytest.approx((means[4] - means[14]).mean())


def test_cheaper_patch_size_that_is_as_good_is_named(run):
    study = load_study(run)
    trials = study.trials
    trials["val_balanced_accuracy"] = trials["patch_size"].map({14: 0.7, 4: 0.895, 2: 0.9, 1: 0.85})
    answer = conclude(study, resamples=50).conclusions[0].answer
    assert (answer.chosen, answer.frugal) == ("2", "4")
    assert answer.frugal_cost < answer.cost


def test_report_is_written_where_the_program_is_now_though_its_drawing_processes_began_elsewhere(tmp_path, monkeypatch):
    run = tmp_path / "study"
    (config,) = made_configs(["breastmnist"], [4], 1)
    write_sweep(run, [config])
    write_trial(run, config)
    monkeypatch.setattr("raypatch.analysis.show.plots.figure.WORTH_PROCESSES", 1)
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        found = write_report([run], Path("report"), ["md"])
        assert all(file.parts[0] == "report" and file.exists() for file in found.files)


def test_unfinished_run_is_reported_with_what_is_missing(tmp_path):
    configs = made_configs(["breastmnist", "retinamnist"], [14, 7], 2, epochs=2)
    write_sweep(tmp_path, configs)
    for config in configs[:5]:
        write_trial(tmp_path, config, images=40)
    write_failed_trial(tmp_path, configs[5])
    found = prepare_report([tmp_path], 20)
    assert "3 planned trials have no result: 2 not started, 1 failed" in found.text
    assert "torch.OutOfMemoryError: made up" in found.text
    assert "5 of 8 planned trials finished" in found.lead
    assert "missing" in [section.anchor for section in found.sections]


def test_damage_is_named_and_the_rest_reported(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    first, second, third, fourth, *_ = SweepPaths(copy).trial_folders()
    first.result.write_text("{")
    second.result.write_text('{"schema_version": 99}')
    third.predictions.write_bytes(third.predictions.read_bytes()[:500])
    stored = {split: load_predictions(copy, fourth.folder.name, split) for split in ("val", "test")}
    stored["test"] = Predictions(stored["test"].index + 1, stored["test"].label, stored["test"].probability)
    write_predictions(fourth.predictions, stored)
    found = prepare_report([copy], 20)
    for trial, reason in (
        (first, "damaged"),
        (second, "newer raypatch"),
        (third, "cannot be read"),
        (fourth, "other images"),
    ):
        (line,) = [line for line in found.text.splitlines() if trial.folder.name in line]
        assert reason in line


def test_nothing_to_report_is_an_error_that_says_why(tmp_path):
    configs = made_configs(["breastmnist"], [14], 2)
    write_sweep(tmp_path, configs)
    with pytest.raises(ValueError, match="2 planned trials have no result"):
        write_report([tmp_path])
    write_failed_trial(tmp_path, configs[0])
    with pytest.raises(ValueError, match="1 failed: torch"):
        write_report([tmp_path])
    with pytest.raises(ValueError, match="no run folder"):
        write_report([tmp_path / "nowhere"])
    assert not (tmp_path / "report").exists()


def test_unknown_format_is_refused(run):
    with pytest.raises(ValueError, match="'pdf'; use some of html, md, latex"):
        write_report([run], formats=["pdf"])


def test_unwritable_folder_is_refused(tmp_path):
    run = write_run(tmp_path / "run", [made_config("breastmnist", 14, 0, epochs=2)], images=40)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="give another --out"):
        write_report([run], tmp_path / "file", ["md"])


def test_one_trial_is_enough_for_a_report_without_an_answer(tmp_path):
    write_run(tmp_path, [made_config("breastmnist", 14, 0, epochs=2)], images=40)
    found = write_report([tmp_path], formats=["html"])
    assert found.folder == tmp_path / "report"
    assert not (found.folder / "report.md").exists()
    assert "patch size 14 is the only patch size so far, there is nothing to compare" in found.text
    assert "One seed only: breastmnist" in found.text


def test_levels_that_no_dataset_shares_give_no_answer(tmp_path):
    write_run(tmp_path, [made_config("breastmnist", 14, 0), made_config("retinamnist", 7, 0)], images=40)
    assert "No answer yet" in prepare_report([tmp_path], 20).text


def test_multilabel_and_made_up_data(tmp_path):
    configs = made_configs(["chestmnist", "phantom2d"], [14, 7], 2, epochs=2)
    write_run(tmp_path, configs, images=200)
    found = prepare_report([tmp_path], 20)
    assert "phantom2d: made-up images" in found.text
    (classes,) = [section for section in found.sections if section.anchor == "classes"]
    assert set(classes.plots[0].data["dataset"]) == {"phantom2d"}
    classes = classes.tables[0].data
    assert (classes["dataset"] == "chestmnist").sum() == 2 * 14


def test_search_shows_the_chosen_configuration_and_every_other(tmp_path):
    configs = [c for lr in (1e-4, 3e-4) for c in made_configs(["breastmnist"], [14, 7], 2, lr=lr, epochs=2)]
    write_run(tmp_path, configs, images=60)
    write_trial(tmp_path, made_config("breastmnist", 14, 0, lr=9e-4), images=60, status="pruned")
    found = prepare_report([tmp_path], 20)
    (search,) = [section for section in found.sections if section.anchor == "search"]
    choices, recipes = (table.data for table in search.tables)
    assert list(choices["level"]) == ["14", "7"]
    assert set(choices["tried"]) == {2}
    assert len(recipes) == 4
    assert found.text.count("| breastmnist |") == 3


def test_what_else_varies_gives_an_answer_for_each_setting_and_one_over_all(tmp_path):
    configs = [
        c
        for m in ("finetune", "linear_probe")
        for c in made_configs(["breastmnist", "retinamnist"], [14, 7], 2, method=m)
    ]
    write_run(tmp_path, configs, images=60)
    text = prepare_report([tmp_path], 20).text
    assert "2D, fine-tuning: " in text
    assert "2D, linear probe: " in text


def test_page_has_code_in_place_of_backticks(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "twins.json").write_text(json.dumps({"test": {"breastmnist": [1, 2]}}))
    found = prepare_report([copy], 20)
    assert "`raypatch report --without-twins`" in " ".join(found.notes)
    html = render_page(found)
    assert "<code>raypatch report --without-twins</code>" in html
    assert "`" not in html


def test_names_from_files_cannot_break_the_page(tmp_path):
    info = DatasetInfo("own", "multiclass", EVIL, channels=1, dimensions=2, size=28, counts=(50, 40, 40))
    configs = [
        TrialConfig(dataset="file:own_set@0123456789ab", patch_size=patch, seed=seed, epochs=2)
        for patch in (14, 7)
        for seed in (0, 1)
    ]
    write_sweep(tmp_path, configs)
    for config in configs:
        write_trial(tmp_path, config, info=info)
    found = prepare_report([tmp_path], 20)
    html = render_page(found)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "own_set" in html


def test_several_runs_make_one_study(run, tmp_path):
    other = write_run(tmp_path / "more", made_configs(["pneumoniamnist"], [14, 4], 2, epochs=2), images=60)
    found = prepare_report([run, other], 20)
    assert "| pneumoniamnist |" in found.text
    assert found.title == "Which patch size? study, more"


@pytest.fixture(scope="module")
def browser():
    if not find_chromium():
        pytest.skip("no chromium: apt-get install chromium")
    browser = Browser()
    yield browser
    browser.close()


MEASURE = """(() => {
  const seen = (e) => { const b = e.getBoundingClientRect(); return b.width > 40 && b.height > 10; };
  const rgb = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const body = getComputedStyle(document.body);
  const texts = [...document.querySelectorAll('.panel svg text')];
  return JSON.stringify({
    overflow: document.scrollingElement.scrollWidth - innerWidth,
    tables: [...document.querySelectorAll('table')].map(seen),
    panels: [...document.querySelectorAll('.panel svg')].map(seen),
    ink: rgb(body.color), paper: rgb(body.backgroundColor),
    texts: texts.length,
    smallest: Math.min(...texts.map((e) => e.getBoundingClientRect().height)),
    tick: rgb(getComputedStyle(document.querySelector('.panel svg text')).fill),
  });
})()"""


def luminance(colour):
    linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_page_is_readable_in_a_browser_and_asks_for_nothing(browser, written, width, dark):
    browser.requests.clear()
    browser.messages.clear()
    browser.open(written.folder / "report.html", width, dark=dark)
    found = json.loads(browser.evaluate(MEASURE))
    assert browser.messages == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [written.files[0].resolve().as_uri()]
    assert found["overflow"] <= 0
    assert len(found["tables"]) >= 10
    assert all(found["tables"])
    assert len(found["panels"]) >= 20
    assert all(found["panels"])
    assert contrast(found["ink"], found["paper"]) > 7
    assert (luminance(found["paper"]) < 0.1) == dark
    assert found["tick"] == found["ink"]
    assert found["smallest"] >= 7


@pytest.mark.slow
def test_latex_of_the_report_compiles(written, tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex: apt-get install texlive-latex-base texlive-latex-recommended")
    tables = (written.folder / "tables.tex").read_text("utf-8")
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n" + tables + "\\end{document}\n"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout[-2000:]
    assert "Missing character" not in answer.stdout
    assert "Overfull" not in answer.stdout
    assert "too large for page" not in answer.stdout


TWO_COLUMNS = (
    "\\documentclass[twocolumn,a4paper]{article}\n\\usepackage[margin=2cm]{geometry}\n"
    "\\usepackage{booktabs,graphicx}\n"
    # Nothing is shrunk: what is too wide must show as an overfull box.
    "\\renewcommand{\\resizebox}[3]{#3}\n"
)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex: apt-get install texlive-latex-base")
@pytest.mark.parametrize("name", ["grid", "backbones", "two"])
def test_latex_tables_fit_two_columns_without_being_shrunk(tmp_path, name):
    if name == "grid":
        folder = write_run(tmp_path / "run", made_configs(DATASETS, PATCH_SIZES, 2, epochs=2), images=80)
    else:
        folder = write_study(tmp_path / "run", STUDIES[name], images=60, epochs=2)
    tables = report_latex(prepare_report([folder], 20))
    # Floats wait for room, and only so many can wait.
    tables = re.sub(r"(\\end\{table\*?\})", r"\1\n\\clearpage", tables)
    (tmp_path / "t.tex").write_text(f"{TWO_COLUMNS}\\begin{{document}}\n{tables}\\end{{document}}\n")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout[-2000:]
    too_wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", answer.stdout)]
    assert max(too_wide, default=0) < 3, answer.stdout
    assert "too large for page" not in answer.stdout


@pytest.mark.slow
def test_report_of_the_whole_grid_takes_under_a_minute(tmp_path):
    write_run(tmp_path / "grid", made_configs(GRID, PATCH_SIZES, 3))
    code = "import sys; from raypatch.analysis.report import write_report; write_report([sys.argv[1]])"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path / "grid")], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of the 120 processor seconds that two cores have in a minute: the time passed depends on what else they do.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 100
