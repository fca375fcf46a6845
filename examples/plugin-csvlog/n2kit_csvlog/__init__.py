"""A logger of trainings: one row of CSV for each log entry. `n2kit train … --log-to csv`."""

from n2kit.contract import hookimpl

N2KIT_PLUGIN_API = (2, 1)


@hookimpl
def n2kit_register_loggers() -> dict[str, str]:
    return {"csv": "n2kit_csvlog.log:CsvLog"}
