"""Which file systems cannot keep a spool's promises."""

from __future__ import annotations

from mailhost.refusal import SpoolUnavailable
from mailhost.spool.files import Files

# flock() and mmap() over a network hold between the processes of one machine at best, and a sync may only reach another's memory.
_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "afs"),
    *("ceph", "lustre", "glusterfs", "gpfs", "ocfs2", "gfs2"),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.davfs2", "fuse.rclone", "fuse.gcsfuse"),
}


def check_local(files: Files, path: str) -> None:
    """@raise SpoolUnavailable: the path is on a network; its cause is one line for the operator."""
    kind = files.file_system(path)
    if kind in _NETWORK:
        raise SpoolUnavailable(
            cause=f"{path} is on a network file system ({kind}), which keeps no promise about locks and syncs"
        )
