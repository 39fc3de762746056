"""The child process of ``serve_gguf``: one llama.cpp server, which lives until standard input closes.

Reads one line of JSON (path, threads, context, parallel, api_key), writes one line of JSON (address, context)
when the model answers, and then waits.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request


def main() -> None:
    """Serve until the parent closes the pipe or dies."""
    # llama.cpp may write to standard output; what the parent reads must hold the address alone.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())

    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = settings["path"]
    parameters.api_keys = [settings["api_key"]]
    parameters.port = 0
    parameters.n_parallel = settings["parallel"]
    parameters.n_ctx = settings["context"] * settings["parallel"]
    parameters.cpuparams.n_threads = settings["threads"]
    parameters.cpuparams_batch.n_threads = settings["threads"]
    parameters.verbosity = 0
    parameters.ui = False
    parameters.endpoint_slots = False
    # Beyond the slot's own cache llama.cpp would keep old prompts in up to 8 GiB of memory.
    parameters.cache_ram_mib = 0
    server = xllamacpp.Server(parameters)
    address = server.listening_address
    # llama.cpp divides n_ctx among the slots, and gives none of them more than the model was trained on.
    key = {"Authorization": f"Bearer {settings['api_key']}"}
    request = urllib.request.Request(f"{address}/props", headers=key)  # noqa: S310 - our own server, on loopback
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
        context = json.load(response)["default_generation_settings"]["n_ctx"]
    print(json.dumps({"address": address, "context": context}), file=answer, flush=True)
    sys.stdin.read()
    # No clean-up: nothing outlives the process, and joining llama.cpp's threads can hang.
    os._exit(0)


if __name__ == "__main__":
    main()
