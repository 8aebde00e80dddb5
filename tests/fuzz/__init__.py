"""A fuzzer for both front doors of a cluster: `make fuzz`, and for some seconds in `make test`.

`corpus` has valid requests of every operation, `mutators` break them, `worlds` send each to two equal sets of
tables, one over HTTP and one over gRPC, `verdicts` judge the answers and `watch` the processes behind them.
"""
