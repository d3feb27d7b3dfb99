"""What the shell may complete: names of studies, datasets and fields."""


def complete_studies(incomplete: str) -> list[str]:
    """Names of shipped studies, for the shell."""
    from raypatch.study import shipped_studies

    return [name for name in shipped_studies() if name.startswith(incomplete)]


def complete_datasets(incomplete: str) -> list[str]:
    """Names of datasets, for the shell; of a list by commas the last one is completed."""
    from raypatch.data.catalog import catalog

    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in catalog() if name.startswith(last)]


def complete_fields(incomplete: str) -> list[str]:
    """Names of a trial's fields, for the shell."""
    from raypatch.config import TrialConfig

    return [name for name in TrialConfig.model_fields if name.startswith(incomplete)]


def complete_settings(incomplete: str) -> list[str]:
    """`field=` for --set, for the shell."""
    # With the =, so that the shell goes on at the value.
    return [f"{name}=" for name in complete_fields(incomplete)]
