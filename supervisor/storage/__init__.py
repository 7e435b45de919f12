"""What is on disk. The only writer is the store; nothing here decides what happens next.

Reading order: `journal` (one line), `journal_file` (the append-only log), `sync` (when it
is on the disk), `checkpoint` (the snapshot), `survey` and `repair` (what an earlier run
left), `store` (all of it together), `reports` (what came of it).

Nothing about workers, signals or terminals may enter. All file operations that matter for
durability go through `disk.Disk`, so that a simulated disk can take its place.
"""
