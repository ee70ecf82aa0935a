"""``python -m tests.skill.routing``: how many labelled sentences are routed right, and which the policy warns of.

``--misses FILE`` names those of one file (by its name without ending) that are not.
"""

from __future__ import annotations

import argparse

from tests.skill.routing.scoring import GROUPS, false_alarms, noticed, right, sentences, share, table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.skill.routing", description="Scores the labelled sentences.")
    parser.add_argument("--misses", metavar="FILE", help="name what of this file is routed wrongly")
    arguments = parser.parse_args()
    read = sentences()
    if arguments.misses:
        for sentence in read:
            if sentence.file == arguments.misses and not right(sentence):
                found = sentence.routed()
                print(f"{sentence.tool} {sentence.lang} {sentence.kind}: {sentence.text[:160]!r}")
                print(f"    {found.tool} {dict(found.points)} {found.why}")
        return
    for title, by in GROUPS.items():
        print(f"by {title}\n{table(read, by)}")
    print(f"all {len(read)}: {share(read):.1%} go to the tool that a careful reader would choose")
    alarms, instant = false_alarms(read)
    seen, hard = noticed(read)
    print(f"instant-multistep, false alarms on kimi_instant: {len(alarms)} of {instant} ({len(alarms) / instant:.1%})")
    print(f"instant-multistep, noticed of kimi_think: {seen} of {hard} ({seen / hard:.1%})")


if __name__ == "__main__":
    main()
