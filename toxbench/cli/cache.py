"""``toxbench cache``: what the cache folder holds, and how to clear it."""

import cloup

from toxbench.cli.console import echo
from toxbench.cli.options import OUTPUT, debug_option, format_option, plugins_option
from toxbench.plugin.registry import Registry


@cloup.command(short_help="Show or clear the folder of tokens and stand-in weights.")
@OUTPUT.option("--clear", is_flag=True, help="Remove all of it.")
@format_option
@plugins_option
@debug_option
def cache(clear: bool, format_name: str | None, plugins: tuple[str, ...] | None) -> None:
    """Show the size of the cache, which TOXBENCH_CACHE names, and clear it with --clear.

    Everything in it is made again when it is needed. It is not cleared while a run uses it.
    """
    from toxbench.cli.output import print_tables
    from toxbench.report.tables import Record, records_table
    from toxbench.store.cache import KINDS, MAX_TOKEN_BYTES, cache_sizes, clear_cache
    from toxbench.util.atomic import cache_folder

    if clear:
        clear_cache()
        echo(f"{cache_folder()}: cleared")
        return
    records: list[Record] = [
        {"content": KINDS[kind], "files": files, "megabytes": size / 1e6}
        for kind, (files, size) in cache_sizes().items()
    ]
    note = f"A run removes the oldest tokens beyond {MAX_TOKEN_BYTES / 1e9:.0f} GB at its start."
    table = records_table(f"Cache in {cache_folder()}", records, [note])
    registry = Registry.with_item("formats", format_name or "plain", plugins)
    print_tables([table], registry, format_name)
