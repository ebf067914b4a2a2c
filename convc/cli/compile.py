"""`convc compile`: a model in, one module out, its result checked before the file appears."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convc.cli.choice import (
    AlgosOption,
    CudnnOption,
    CudnnUse,
    DeterministicOption,
    FallbackOption,
    LogOption,
    MaxErrorOption,
    PolicyOption,
    PreferOption,
    RequireOption,
    WhenOption,
    WorkspaceOption,
    parse_policy,
)
from convc.cli.compile_report import document, show, why_not_here
from convc.cli.forms import Format, output_path
from convc.cli.model_options import AS_WRITTEN, ModelOptions, reads_model
from convc.cli.parameters import (
    AlgoForOption,
    AlgoOption,
    AreaOption,
    BatchSizeOption,
    CcOption,
    EarlyOption,
    FastMathOption,
    JsonOption,
    McpuOption,
    ModelArgument,
    MtripleOption,
    PtxOption,
    QuietOption,
    SeedOption,
    SmOption,
    TargetOption,
    ThreadsOption,
    VerboseOption,
    existing_file,
    parse_algo_for,
    parse_areas,
    target_words,
)
from convc.cli.progress import StageProgress
from convc.cli.render import Output, print_json
from convc.cli.sources import model_file
from convc.errors import AccuracyError

if TYPE_CHECKING:
    from convc.compiler import CompiledModel
    from convc.verify import VerifyReport

__all__ = ["compile"]


@reads_model
def compile(
    model: ModelArgument,
    out: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write; default: the model's name in this folder, with .so, .a, or for a bundle nothing behind it.", show_default=False)] = None,
    format: Annotated[Format, typer.Option("--format", help="so: one file. bundle: a folder (or .tar) with the C runtime, headers and examples; for cuda it needs the driver alone. static: an archive and headers to link.")] = Format.SO,
    reading: ModelOptions = AS_WRITTEN,
    batch_size: BatchSizeOption = None,
    area: AreaOption = None,
    target: TargetOption = "llvm",
    sm: SmOption = None,
    ptx: PtxOption = False,
    fast_math: FastMathOption = False,
    early: EarlyOption = "",
    mcpu: McpuOption = "host",
    mtriple: MtripleOption = None,
    cc: CcOption = "g++",
    threads: ThreadsOption = None,
    algo: AlgoOption = "auto",
    algo_for: AlgoForOption = None,
    algos: AlgosOption = "",
    cudnn: CudnnOption = CudnnUse.AUTO,
    policy: PolicyOption = "time",
    when: WhenOption = "once",
    require: RequireOption = None,
    prefer: PreferOption = None,
    fallback: FallbackOption = True,
    deterministic: DeterministicOption = False,
    workspace_limit: WorkspaceOption = None,
    max_error: MaxErrorOption = None,
    log: LogOption = None,
    require_tuned: Annotated[bool, typer.Option("--require-tuned", help="Refuse, with exit code 6, a layer without a tuned record.")] = False,
    lock: Annotated[Path | None, typer.Option("--lock", metavar="convc.lock", help="Write the plan and the module's hash, to be repeated.", show_default=False)] = None,
    locked: Annotated[Path | None, typer.Option("--locked", metavar="convc.lock", help="Repeat a plan: the same module, byte for byte.", show_default=False)] = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Compare the module with the float64 reference on one random input.")] = True,
    tolerance: Annotated[float | None, typer.Option("--tolerance", min=0, help="Greatest max |error| / max |reference| that passes; default: 1e-4, for half types four times what their rounding alone costs.", show_default=False)] = None,
    seed: SeedOption = 0,
    dump: Annotated[Path | None, typer.Option("--dump", metavar="DIR", help="Write the graph as text after each pass (structure and small constants; large ones by name only).", show_default=False)] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:  # fmt: skip
    """Compile a model to a module that runs without a compiler, and check its result."""
    from convc.compiler import compile as compile_model
    from convc.open_areas import areas_of

    output = Output(json, quiet, verbose)
    source = model_file(model)
    path = output_path(out, model, format)
    if format is not Format.SO and (lock or locked):
        raise typer.BadParameter(f"--lock and --locked must be with --format so; got {format}.")
    given = reading.compile_keywords(source)
    if lock and areas_of(given["shapes"]) is not None and len(area or ()) != 1:
        raise typer.BadParameter(f"--lock must be with one --area, the largest height and width; got {len(area or ()) or 'none'}.")  # fmt: skip
    began = time.perf_counter()
    with StageProgress(output) as progress:
        compiled = compile_model(
            source,
            target=target_words(target, sm, ptx, fast_math, early),
            mcpu=mcpu,
            mtriple=mtriple,
            threads=threads,
            **{
                **given,
                **({"batch_sizes": batch_size} if batch_size else {}),
            },
            algo=algo,
            algo_for=parse_algo_for(algo_for),
            policy=parse_policy(
                algos,
                policy,
                when,
                require,
                prefer,
                deterministic,
                workspace_limit,
                max_error,
                fallback=fallback,
            ),
            cudnn=cudnn.value,
            logs=log,
            require_tuned=require_tuned,
            locked=existing_file(locked, "--locked") if locked else None,
            areas=parse_areas(area),
            progress=progress,
            dump=dump,
        )
        if lock and len(compiled.batch_sizes) > 1:
            sizes = ", ".join(map(str, compiled.batch_sizes))
            raise typer.BadParameter(f"--lock must be with one --batch-size; got {sizes}.")
        reports = _write(
            compiled, path, format, cc, progress, verify, tolerance, seed, reading.dtype
        )
    for note in compiled.planned.notes:
        output.warn(note)
    _settle_locks(compiled, path, lock, locked)
    total = time.perf_counter() - began
    if output.json:
        print_json(document(model, path, compiled, reports, progress.seconds, total))
    elif not output.quiet:
        show(path, compiled, reports, progress.seconds, total)


def _settle_locks(
    compiled: CompiledModel, path: Path, lock: Path | None, locked: Path | None
) -> None:
    """Compare the module with the lock that it repeats, and write the lock that is asked for."""
    if lock is None and locked is None:
        return
    import msgspec

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    wanted = compiled.planned.lock.module_sha256
    if locked is not None and wanted not in ("", digest):
        path.unlink()
        raise AccuracyError(
            f"module must have the lock's SHA-256 {wanted}; got {digest}. Something that the lock does not know has changed: "
            f"the linker, or the weights. '{path}' is not kept."
        )
    if lock is not None:
        msgspec.structs.replace(compiled.planned.lock, module_sha256=digest).write(lock)


def _write(
    compiled: CompiledModel,
    path: Path,
    format: Format,
    cc: str,
    progress: StageProgress,
    verify: bool,
    tolerance: float | None,
    seed: int,
    dtype: str | None,
) -> dict[str, VerifyReport]:
    """Export beside `path`, check that file, and only if it is right write what was asked for: no wrong module is ever left."""
    from convc.deploy.bundle import write_bundle
    from convc.runtime import load_each
    from convc.verify import verify_areas, verify_each

    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial.so")
    try:
        progress("export", 0, 1)
        compiled.export(partial, cc=cc)
        reports: dict[str, VerifyReport] = {}
        if verify and not why_not_here(compiled):
            modules = load_each(partial)
            options: dict[str, Any] = {"seed": seed, "tolerance": tolerance, "dtype": dtype, "progress": progress}  # fmt: skip
            if compiled.sources[1:]:
                sizes = (compiled.sources[0], compiled.sources[-1])
                reports = verify_areas(modules, sizes, **options)
            else:
                reports = verify_each(modules, compiled.source, **options)
            for mcpu, report in reports.items():
                try:
                    report.raise_if_failed()
                except AccuracyError as error:
                    error.add_note(
                        f"That is the code for {mcpu}. '{path}' is not written. With --no-verify it is."
                    )
                    raise
            progress("verify", 1, 1)
        if format is Format.SO:
            partial.replace(path)
        elif format is Format.BUNDLE:
            write_bundle(partial, path, cc=cc)
        else:
            compiled.export(path, format="static", cc=cc)
    finally:
        partial.unlink(missing_ok=True)
    return reports
