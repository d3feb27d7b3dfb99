"""A study: one YAML file that says what is compared, on which data, with which fields;
`resolve` makes its trials.
"""

from raypatch.study.files import default_run_name, load_study, parse_setting, shipped_studies
from raypatch.study.names import check_name
from raypatch.study.rules import FACTS, WhenRule, as_list, typed_value
from raypatch.study.study import Study

__all__ = [
    "FACTS",
    "Study",
    "WhenRule",
    "as_list",
    "check_name",
    "default_run_name",
    "load_study",
    "parse_setting",
    "shipped_studies",
    "typed_value",
]
