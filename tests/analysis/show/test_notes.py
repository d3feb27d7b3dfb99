"""What a report says first: classes that a split lacks."""

import pandas as pd

from raypatch.analysis.show.notes import _notes_on_absent_classes


def test_a_class_without_images_in_val_or_test_is_said_in_words() -> None:
    row = {"status": "ok", "dataset_label": "own", "classes": ("a", "b", "c")}
    trials = pd.DataFrame(
        [
            {**row, "balance": ((0, 3, 3), (0, 2, 0), (1, 1, 1))},
            {**row, "balance": ()},
            {"status": "failed", "dataset_label": "own"},
        ]
    )
    assert _notes_on_absent_classes(trials) == [
        "own: no val image of a, c; what needs all classes, such as the AUC, is not defined there, and no threshold"
        " is chosen for them."
    ]
