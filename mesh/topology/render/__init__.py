"""A plan as a picture and as data: Mermaid for Markdown, SVG for everything else, JSON for machines.

Pure, and the same text for the same plan. Names are escaped, so that whatever a plan holds, the text is well formed.
"""

from mesh.topology.render.description import to_json
from mesh.topology.render.flow import Flow, LineNotes, Vertex, flows_of
from mesh.topology.render.later import later_of
from mesh.topology.render.mermaid import mermaid
from mesh.topology.render.svg import svg

__all__ = ["Flow", "LineNotes", "Vertex", "flows_of", "later_of", "mermaid", "svg", "to_json"]
