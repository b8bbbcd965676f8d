"""Clip Courier: lawful samples of voice clips to transcription vendors, and their transcripts back."""

import os

# Arrow's own allocator holds on to what it was once given: 40 MiB that a process which delivers for hours has no use
# for. Read when Arrow is first loaded, so before anything of ours is; whoever has chosen another keeps it.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
