"""`python -m bench.vllm [options]`."""

import argparse

from bench.table import render
from bench.vllm import rows
from bench.vllm.llama import FORMATS
from bench.vllm.plan import Plan
from bench.vllm.servers import SERVERS


def main() -> None:
    """Read the options, run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.vllm", description=__doc__)
    plan = Plan()
    parser.add_argument("--model", default=plan.model, help="a name Baton knows, a directory, tiny or small")
    parser.add_argument("--dtype", default=plan.dtype)
    parser.add_argument("--streams", type=int, nargs="+", default=plan.streams)
    parser.add_argument("--prompt", type=int, default=plan.prompt, help="tokens")
    parser.add_argument("--answer", type=int, default=plan.answer, help="tokens")
    parser.add_argument("--threads", type=int, default=plan.threads, help="of each process of an engine; 0: its own")
    parser.add_argument("--kv-cache-mb", type=int, default=plan.kv_cache_mb, help="of each engine")
    parser.add_argument("--turns", type=int, default=plan.turns, help="the best one counts")
    parser.add_argument("--waves", type=int, default=plan.waves, help="requests of each stream and turn")
    parser.add_argument("--servers", nargs="+", choices=[*SERVERS, *FORMATS], default=plan.servers)
    parser.add_argument("--llama-python", default=plan.llama_python, help="an interpreter that has llama_cpp")
    parser.add_argument("--json", default=plan.json, help="a file for the figures")
    print(render(rows(Plan(**vars(parser.parse_args())))))


if __name__ == "__main__":
    main()
