"""Unikernel images for Xen: for each role one kernel and one initramfs that runs it and nothing else."""
