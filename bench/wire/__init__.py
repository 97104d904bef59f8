"""What a gRPC call costs: `mesh.wire` beside grpcio and pygrpc-native.

engines    the contenders
serving    a process that serves with one of them
dialling   a process that calls with one of them
child      both, seen from here: what they are told, and the CPU time that they took
load       a client of raw bytes, the same for every server
neutral    another, which is not ours: h2load
rounds     samples in turn, and ratios within a round
suite      the points that are measured, and their targets
page       the tables
"""
