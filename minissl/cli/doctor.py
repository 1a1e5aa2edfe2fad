"""``minissl doctor``: this machine and the libraries minissl stands on."""

from __future__ import annotations

import click

from minissl.cli import options

EPILOG = """
\b
Examples:
  minissl doctor
  minissl doctor --json
  minissl doctor --calibrate
"""


@click.command(epilog=EPILOG)
@click.option(
    "--calibrate",
    is_flag=True,
    help="First measure this machine for conv_mode AUTO, three minutes, while nothing else runs; "
    "the result is kept for this CPU and these libraries.",
)
@options.threads_option
@options.json_option
def command(calibrate: bool, threads: int | None, as_json: bool) -> None:
    """Check Python, libraries, backends, threads, BLAS, vector units, caches and data sets.

    Exit code 1 when something that minissl needs is missing or broken; what is marked "advice"
    only costs speed or comfort, and it is said how much.
    """
    from minissl import doctor

    options.use_threads(threads, "numba")
    if calibrate:
        _calibrate(as_json)
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


def _calibrate(quiet: bool) -> None:
    """Measure the machine, keep the result, and say where."""
    from minissl import machine
    from minissl.backend import threads
    from minissl.conv_modes import calibration
    from minissl.errors import ConfigError

    if not quiet:
        options.note("measuring this machine, about three minutes; leave it alone meanwhile")
    with options.progress("calibrating", calibration.steps(threads()), quiet=quiet) as tick:
        measured = calibration.calibrate(tick)
    try:
        path = machine.save(measured)
    except OSError as error:
        raise ConfigError(
            f"{machine.store.folder()} cannot be written ({error.strerror}); set XDG_CACHE_HOME to "
            "a folder that can"
        ) from error
    if not quiet:
        options.note(f"kept in {path}")
