"""Every error convc raises on purpose.

    ConvcError
      FrontendError
        UnsupportedModelError     (also NotImplementedError)  operators or attributes convc does not take; lists all
        InvalidModelError         (also ValueError)           the model file, an attribute or an opset is wrong
      ShapeError                  (also ValueError)           operands that do not fit each other
      DTypeError                  (also TypeError)
      TextError                   (also ValueError)           the text form of a graph does not parse
      VerifyError                 the IR broke a rule after a pass: a bug in convc
      ScheduleError
        UnsupportedConvError      no algorithm takes the convolution; carries every reason
        InvalidKnobsError         (also ValueError)
        UnknownNameError          (also ValueError)           an algorithm, layer or target nobody knows
      LoweringError               the compiler below (TVM, g++) failed
      ToolchainError              something this machine lacks: a wrong TVM, no g++, an unknown CPU
      DeviceError                 a CUDA device or its driver refused or failed
      AccuracyError               a compiled module disagrees with its reference
      PackageError                a packaged module: manifest, version or file is wrong
        TargetMismatchError       this machine cannot run the module
      TuningError                 a tuning log, lock file or runner cannot be used
        UntunedError              --require-tuned, and a layer has no record
      InputError                  (also ValueError)           run() got a wrong name, shape, dtype or value

Texts have one form: `<subject> must <rule>; got <value>.`, both sides of a mismatch shown, then at most one hint.
Each layer above the raiser adds one line of context with `add_note`; nothing is re-wrapped.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AccuracyError",
    "ConvcError",
    "DTypeError",
    "DeviceError",
    "FrontendError",
    "InputError",
    "InvalidKnobsError",
    "InvalidModelError",
    "LoweringError",
    "PackageError",
    "ScheduleError",
    "ShapeError",
    "TargetMismatchError",
    "TextError",
    "ToolchainError",
    "TuningError",
    "UnknownNameError",
    "UnsupportedConvError",
    "UnsupportedModelError",
    "UntunedError",
    "VerifyError",
    "unknown_name",
]


class ConvcError(Exception):
    """Base of everything convc raises on purpose."""


class FrontendError(ConvcError):
    """A model could not be turned into a graph."""


class UnsupportedModelError(FrontendError, NotImplementedError):
    """The model uses operators or attributes that convc does not take; the message lists all of them."""


class InvalidModelError(FrontendError, ValueError):
    """The model contradicts the ONNX specification or cannot be read."""


class ShapeError(ConvcError, ValueError):
    """Operand shapes or an attribute's length do not fit each other."""


class DTypeError(ConvcError, TypeError):
    """Operand element types do not fit each other, or an operation does not take them."""


class TextError(ConvcError, ValueError):
    """The text form of a graph does not parse; the message has file, line and column."""


class VerifyError(ConvcError):
    """The IR broke one of its own rules: a bug in convc."""


class ScheduleError(ConvcError):
    """No kernel could be chosen or scheduled."""


class UnsupportedConvError(ScheduleError):
    """No algorithm takes this convolution; the message has one line per algorithm."""


class InvalidKnobsError(ScheduleError, ValueError):
    """A knob has a value outside its space."""


class UnknownNameError(ScheduleError, ValueError):
    """A name that is in no table: algorithm, layer, target, knob."""


class LoweringError(ConvcError):
    """TVM or the system compiler failed on code that convc emitted."""


class ToolchainError(ConvcError):
    """This machine lacks something that the request needs; the message says what and how to get it."""


class DeviceError(ConvcError):
    """A CUDA device, or the driver's function that is named, refused or failed; the message has CUDA's own text."""


class AccuracyError(ConvcError):
    """A compiled module's outputs differ from the reference by more than the tolerance."""


class PackageError(ConvcError):
    """A packaged module's file, format version or manifest is wrong."""


class TargetMismatchError(PackageError):
    """The module was built for a machine that this one is not."""


class TuningError(ConvcError):
    """A tuning log, a lock file or a runner cannot be used; the message says why and what can be done."""


class UntunedError(TuningError):
    """A tuned record was required for every layer; the message lists the layers without."""


class InputError(ConvcError, ValueError):
    """`run` was given a wrong name, shape, dtype, memory layout or value."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for a name that is in no table, with the nearest known one.

    Example:
        >>> print(unknown_name("algorithm", "winogard", ["direct", "winograd"]))
        unknown algorithm 'winogard'; known: direct, winograd. Did you mean 'winograd'?
    """
    names = list(known)
    # From Python a name may be anything.
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UnknownNameError(f"unknown {kind} '{name}'; known: {', '.join(names) or 'none'}.{hint}")
