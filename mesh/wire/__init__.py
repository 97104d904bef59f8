"""gRPC over HTTP/2 on asyncio, in pure Python: a drop-in for `grpc.aio`. It knows nothing of meshes.

Sans-I/O inside (`mesh.wire.connection`: bytes in, events and bytes out), thin asyncio protocols around it.
"""

from mesh.wire.channel import insecure_channel, secure_channel
from mesh.wire.credentials import ChannelCredentials, ServerCredentials
from mesh.wire.server import server

__all__ = ["ChannelCredentials", "ServerCredentials", "insecure_channel", "secure_channel", "server"]
