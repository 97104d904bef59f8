"""The load tool: send requests in a closed or an open loop, and say honestly how long they took.

    report = await run_load(send, LoadPlan(mode="poisson", rate_per_s=500, duration_s=10, warm_up_s=1))
    rich.print(render(report))
    json.dump(report.to_json(), file)

`send` is whatever sends one request: to a node, a graph, through any transport. Run an open loop on
`precise_event_loop`.
"""

from mesh.load.loop import precise_event_loop
from mesh.load.measure import Distribution, ErrorCount, NodeShare
from mesh.load.plan import LoadPlan, Mode
from mesh.load.report import Report, render
from mesh.load.run import Progress, Send, run_load

__all__ = [
    "Distribution",
    "ErrorCount",
    "LoadPlan",
    "Mode",
    "NodeShare",
    "Progress",
    "Report",
    "Send",
    "precise_event_loop",
    "render",
    "run_load",
]
