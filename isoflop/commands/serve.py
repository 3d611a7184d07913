import os
import secrets

import click


@click.command()
@click.argument("folder", required=False, type=click.Path(exists=True))
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="A further name that the page is reached by.")
@click.option("--data", type=click.Path(file_okay=False), envvar="ISOFLOP_DATA",
              help="The public data sets, for the papers' claims. [env: ISOFLOP_DATA]")  # fmt: skip
@click.option("--prices", type=click.Path(exists=True, dir_okay=False), help="Your own table of devices and prices.")
@click.option("--upload-mb", default=32, show_default=True, type=click.IntRange(1, 2048), help="Largest upload.")
@click.option("--sessions", default=64, show_default=True, type=click.IntRange(1, 1000), help="Most at once.")
@click.option("--idle-minutes", default=60.0, show_default=True, help="After which a session is forgotten.")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes for fits. [default: one a core]")
@click.option("--json", "as_json", is_flag=True, help="Print the address as one JSON object.")
def serve(folder, port, host, allow_host, data, prices, upload_mb, sessions, idle_minutes, workers, as_json):
    """A planning page in the browser: open a table, fit, plan, compare. FOLDER holds the tables it offers.

    It listens on this machine alone. With --host another address, whoever opens it needs the token that is printed.

    \b
    isoflop serve runs/
    """
    from pathlib import Path

    try:
        from isoflop.page import _guard, _server
    except ImportError as error:
        raise ImportError("the page needs aiohttp and plotly: pip install 'isoflop[page]'") from error

    token = None if _guard.is_loopback(host) else secrets.token_urlsafe(24)
    settings = _server.Settings(
        root=Path(folder) if folder else None, bind=host, port=port, token=token, allow=tuple(allow_host), data=data,
        prices=prices, upload=upload_mb << 20, sessions=sessions, idle=60.0 * idle_minutes,
        workers=workers or os.cpu_count() or 1,
    )  # fmt: skip
    _server.serve(settings, lambda taken: _say(host, taken, token, as_json))


def _say(host, port, token, as_json):
    """Where the page is; the token stands after #, which browsers send to nobody."""
    from isoflop._cli import emit

    shown = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1") else f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}/" + (f"#token={token}" if token else "")
    emit(as_json, {"url": url, "port": port}, f"isoflop page at {url} (Ctrl-C ends it)")
