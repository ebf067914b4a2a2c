r"""The text form of a graph, in the manner of MLIR: one node a line, printed and parsed.

    graph @resnet {
      %x = input : f32[1,3,224,224]
      %w = constant splat(0.5) : f32[64,3,7,7]
      %b = constant dense([0.0, 1.5]) : f32[2]
      %k = constant ref("resnet.npz", "k") : f32[64,64,3,3]
      %y = conv(%x, %w) {strides = [2, 2], pads = [3, 3, 3, 3], epilogue = [relu, clip(0.0, 6.0)]} : f32[1,64,112,112]
      return %y as "prob_1"
    }

Names       Anything but `[A-Za-z_][A-Za-z0-9_.]*` is quoted with JSON's escapes: `%"gpu_0/data_0"`, `@"my net"`.
Layout      White space (and `;`) separates nothing and may stand anywhere; `#` starts a comment that ends with the line.
Attributes  `name = value` for every field of the op's attribute dataclass that is not at its default.
Types       `f32[1,3]`, short names as in `ir.types`. An op's type may be left out; if it is there it must be the inferred one.
Outputs     `return %y as "prob"`, several separated by commas; `return %y` when output and value share the name.
            `return %y counted "n" on 0, %k as "n"`: of axis 0 there is as much as the scalar output "n" says.
Numbers     Shortest decimals that read back as the same bits; `inf`, `-inf`, `nan`; a NaN with other bits is `nan(0xffc00000)`.
Constants   `splat(v)` for a broadcast scalar, `dense([...])`, row-major, for at most 16 elements, else `ref("file.npz", "key")`:
            the array `key` of an .npz file whose path is relative to the .cvc file and stays inside its directory.
            NumPy has no bfloat16: such arrays are stored as uint16 with the same bits.

`print_graph(graph, weights="net.npz")` only writes the references; `save(graph, "net.cvc")` writes net.cvc and net.npz, each by
an atomic rename, the weights first.

Example:
    >>> graph = parse("graph @g { %x = input : f32[2]  %y = relu(%x)  return %y }")
    >>> print(print_graph(graph), end="")
    graph @g {
      %x = input : f32[2]
      %y = relu(%x) : f32[2]
      return %y
    }
"""

from convc.ir.text.files import load, save
from convc.ir.text.parser import parse
from convc.ir.text.printer import print_graph

__all__ = ["load", "parse", "print_graph", "save"]
