"""``minissl doctor``: this machine and the libraries minissl stands on."""

from __future__ import annotations

import click

from minissl.cli import options

EPILOG = """
\b
Examples:
  minissl doctor
  minissl doctor --json
"""


@click.command(epilog=EPILOG)
@options.json_option
def command(as_json: bool) -> None:
    """Check Python, libraries, backends, threads, BLAS, vector units, caches and data sets.

    Exit code 1 when something that minissl needs is missing or broken; what is marked "advice"
    only costs speed or comfort.
    """
    from minissl import doctor

    checks = doctor.examine()
    fit = doctor.is_fit(checks)
    if as_json:
        options.show_json({"ok": fit, "checks": [check.to_json() for check in checks]})
    else:
        for check in checks:
            state = "ok" if check.ok else "BROKEN" if check.needed else "advice"
            click.echo(f"{state:7} {check.name:19} {check.detail}")
        click.echo("Everything that is needed is there." if fit else "See BROKEN above.")
    if not fit:
        click.get_current_context().exit(1)
