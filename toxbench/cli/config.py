"""``toxbench config``: every setting, its value and its source."""

import os
from pathlib import Path

import cloup

from toxbench.cli.options import config_option, table_options
from toxbench.config import setting_layers, setting_sources
from toxbench.plugin.registry import Registry


@cloup.command(short_help="Print every setting, its value and where it came from.")
@config_option
@table_options
def config(config: Path | None, format_name: str | None, plugins: tuple[str, ...] | None) -> None:
    """Print the settings that a command in this folder has without options.

    Later sources override earlier ones: defaults, the preset, [tool.toxbench] in pyproject.toml,
    --config, and environment variables. Options override all of them.
    """
    from toxbench.cli.output import print_tables
    from toxbench.report.tables import Record, records_table
    from toxbench.util.atomic import CACHE_VARIABLE, cache_folder

    sources = setting_sources(setting_layers(config))
    if url := sources["tune.storage"][0]:
        from toxbench.tuning.storage import redact_url

        sources["tune.storage"] = (redact_url(str(url)), sources["tune.storage"][1])
    cache_source = CACHE_VARIABLE if os.environ.get(CACHE_VARIABLE) else "default"
    sources["cache"] = (str(cache_folder()), cache_source)
    records: list[Record] = [
        {"setting": name, "value": _text(value), "source": source}
        for name, (value, source) in sources.items()
    ]
    note = "The default of a training setting is that of the backbone; this is toxbench's."
    table = records_table("Settings", records, [note])
    registry = Registry.with_item("formats", format_name or "plain", plugins)
    print_tables([table], registry, format_name)


def _text(value: object) -> str:
    if value is None or value == ():
        return "-"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
