"""Pictures of graphs: every value that is computed, every edge, well-formed."""

from __future__ import annotations

import io
from xml.etree import ElementTree

from convc.ir.text import parse, print_graph

GRAPH = parse(
    """graph @"a <b>" { %x = input : f32[1,2,4,4]  %w = constant splat(1.0) : f32[2,2,1,1]  %c = conv(%x, %w)
    %r = relu(%c)  %y = add(%r, %x)  return %y as "y & z", %r }"""
)


def test_dot_has_every_value_and_edge():
    dot = GRAPH.to_dot()
    for edge in (
        '"x" -> "c"',
        '"c" -> "r"',
        '"r" -> "y"',
        '"x" -> "y"',
        '"y" -> "return y & z"',
        '"r" -> "return r"',
    ):
        assert edge in dot
    assert dot.count("->") == 6
    assert '"w"' not in dot


def test_svg_is_well_formed():
    root = ElementTree.fromstring(GRAPH.to_svg())
    tags = [child.tag.rpartition("}")[2] for child in root]
    assert tags.count("rect") == 6
    assert tags.count("path") == 6
    texts = [child.text for child in root if child.tag.endswith("text")]
    assert "return y & z" in texts
    assert "c = conv" in texts


def test_show_prints_the_text_form():
    out = io.StringIO()
    GRAPH.show(out)
    assert out.getvalue() == print_graph(GRAPH)
