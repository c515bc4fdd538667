"""The Xen back end: each domain a guest of its own, built by xl, wired in the xenstore, seen by its status page."""
