"""An SVG file made part of a page: ids of its own, colours that follow the page's theme, text for screen readers."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping

_NAMESPACE = re.compile(r"^\{[^}]*\}")
_REFERENCE = re.compile(r"url\(#")
_DROPPED = {"metadata", "style"}


def inline_svg(svg: bytes, *, name: str, title: str, description: str, colours: Mapping[str, str]) -> str:
    """The SVG element of ``svg`` as markup for an HTML page.

    Args:
        name: prefix of its ids, unique in the page.
        title: what a screen reader calls the picture.
        description: what it shows, in words.
        colours: hex colour to name of the CSS variable that replaces it.
    """
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in [c for c in parent if _NAMESPACE.sub("", c.tag) in _DROPPED]:
            parent.remove(child)
    for element in root.iter():
        element.tag = _NAMESPACE.sub("", element.tag)
        element.attrib = {
            _NAMESPACE.sub("", key): _value(_NAMESPACE.sub("", key), value, name, colours)
            for key, value in element.attrib.items()
        }
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib.update({"role": "img", "aria-labelledby": f"{name}-title {name}-desc"})
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        told = ET.Element(tag, {"id": f"{name}-{tag}"})
        told.text = text
        root.insert(place, told)
    return ET.tostring(root, encoding="unicode")


def _value(key: str, value: str, name: str, colours: Mapping[str, str]) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value.removeprefix('#')}"
    value = _REFERENCE.sub(f"url(#{name}-", value)
    if key == "style":
        for colour, variable in colours.items():
            value = value.replace(colour, f"var(--{variable})")
    return value
