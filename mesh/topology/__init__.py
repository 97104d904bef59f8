"""The topology language and its compiler: YAML -> Topology -> Graph -> Plan.

Pure: it opens the file, imports the node classes it names and reads their models' signatures, and starts nothing.
"""

from mesh.topology.compile import Compiled, compile_file, compile_text
from mesh.topology.graph import Graph, GraphLimits, GraphNode, LayerSettings, edge_node
from mesh.topology.graph_jobs import GraphBatch, GraphCallbacks, GraphJobs, GraphSchedule, GraphTls
from mesh.topology.load import LayerTypes
from mesh.topology.placement import Partition, Plan, Worker
from mesh.topology.schema import json_schema

__all__ = [
    "Compiled",
    "Graph",
    "GraphBatch",
    "GraphCallbacks",
    "GraphJobs",
    "GraphLimits",
    "GraphNode",
    "GraphSchedule",
    "GraphTls",
    "LayerSettings",
    "LayerTypes",
    "Partition",
    "Plan",
    "Worker",
    "compile_file",
    "compile_text",
    "edge_node",
    "json_schema",
]
