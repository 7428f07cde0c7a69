"""A server that trains and a device that predicts, and what lies between.

Weights, messages and the wire are numpy alone. Both ends of a connection are
without sockets and clocks (`session` and `hub` at the server, `device` and
`plan` at the device), around them are threads and WebSockets (`server`,
`client`), and behind them what computes: `trainer` and `course`, `player`. No
module imports torch; a server's teacher may.
"""
