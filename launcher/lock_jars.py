"""Write the list of jars of a Nextflow release, for maintainers; needs jgo on the path.

Usage: lock_jars.py LIST COORDINATE... [-GROUP:ARTIFACT...]

Resolves the graph of the coordinates GROUP:ARTIFACT:VERSION, leaves out those with a minus before them,
fetches all, and writes ``SHA256  GROUP:ARTIFACT:VERSION`` lines to LIST. The lists of this folder come from

    nextflow-24.10.0.jars  io.nextflow:nextflow:24.10.0
    nextflow-25.04.0.jars  io.nextflow:nextflow:25.04.0 and NEIGHBOURS
    nextflow-25.04.4.jars  io.nextflow:nextflow:25.04.4 and NEIGHBOURS

with NEIGHBOURS = io.nextflow:nf-lang:25.04.0 io.nextflow:nf-commons:25.04.4 io.nextflow:nf-httpfs:25.04.4
-io.seqera:lib-trace, since the 25.04 releases are published without some of their parts. 25.04.0 serves
`nextflow lint`, 25.04.4 runs pipelines under the strict syntax.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jgo.maven import MavenContext
from jgo.parse import Coordinate


def main() -> None:
    """Write the list that the command line asks for."""
    listing, words = Path(sys.argv[1]), sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(8) as pool:
        context = MavenContext(repo_cache=Path(folder), timeout=60)
        excluded = [context.project(*word[1:].split(":")) for word in words if word.startswith("-")]
        roots = [
            context.create_dependency(Coordinate.parse(word), excluded)
            for word in words
            if not word.startswith("-")
        ]
        _, nodes = context.resolver.get_dependency_list(roots)
        wanted = {d.artifact.component for d in [*roots, *(node.dep for node in nodes)]}

        def line(component: object) -> str:
            path = component.artifact().resolve()  # type: ignore[attr-defined]
            return f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {component}\n"

        lines = list(pool.map(line, wanted))
    listing.write_text("".join(sorted(lines, key=lambda text: text.split()[1])))


if __name__ == "__main__":
    main()
