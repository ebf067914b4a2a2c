"""`convc sign`: say who made a module's file, so that others can refuse one that is somebody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convc.cli.parameters import JsonOption, QuietOption, VerboseOption, existing_file
from convc.cli.render import Output, console, print_json
from convc.cli.sources import module_file

__all__ = ["sign"]


def sign(
    module: Annotated[Path | None, typer.Argument(metavar="[MODULE]", help="A compiled module (.so).", show_default=False)] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="KEY", help="The private key, Ed25519 in PEM.", show_default=False)] = None,
    new_key: Annotated[Path | None, typer.Option("--new-key", metavar="KEY", help="Make a key first: KEY, to be kept secret, and KEY.pub, to be given away.", show_default=False)] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:  # fmt: skip
    """Write MODULE.sig, which `convc inspect --public-key` and `openssl pkeyutl` check; print the file's SHA-256."""
    from convc.runtime import read_manifest
    from convc.runtime.seal import sha256_of
    from convc.signature import new_key as make_key
    from convc.signature import sign as sign_file

    output = Output(json, quiet, verbose)
    if (key is None) == (new_key is None):
        raise typer.BadParameter("convc sign must have one of --key and --new-key.")
    if module is None and new_key is None:
        raise typer.BadParameter("convc sign must have a MODULE; got only --key.")
    document: dict[str, str] = {}
    if module is not None:
        # A damaged file is not worth a signature.
        read_manifest(module_file(module), verify_checksums=True)
    if new_key is not None:
        document |= {"key": str(new_key), "public_key": str(make_key(new_key))}
    if module is not None:
        secret = new_key or existing_file(key or Path(), "--key")
        document["signature"] = str(sign_file(module, secret))
        document["sha256"] = sha256_of(module.read_bytes())
    if output.json:
        print_json(document)
    elif not output.quiet:
        for name, value in document.items():
            console().print(f"{name.replace('_', ' '):<11} {value}", markup=False)
