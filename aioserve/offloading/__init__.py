"""Work beside the loop: ``aioserve.offload`` and what carries it out.

    api         offload(), its stream and decorator: from a function to an awaited result, bound to the request
    pool        one per worker process: the queue, the deadlines, the counters; knows no way to run anything
    schedule    which call runs where next (pure)
    call        one call from its beginning to its one end
    engines     what runs calls: ``children`` (processes of our own), ``executors`` (threads, dask, anybody's)
    lane        one child as the worker sees it: a lane of ``children``
    nursery     the process that starts, kills and reaps the children; forks where that is safe
    child       what runs in a child
    target      the function of a call: its name, and a run of it in an executor
    foreign     what functions raise, made fit to be carried
    parcel      from objects to bytes and back, large ones through shared memory
    wire        the frames between a worker and its children

The package is not called ``offload`` because that is the name of the function: ``aioserve.offload`` would be the
package as soon as somebody had imported it. It knows nothing of HTTP and nothing of the server but the protocol
``Requests`` in ``bound``.
"""
