import sys, os, time
from appliance.guest import domain
import json
def main():
    os.write(1, f"PY {sys.version} pid {os.getpid()} path {sys.path} modules {len(sys.modules)} up {time.clock_gettime(time.CLOCK_MONOTONIC):.3f}\n".encode())
    import components.rng.main
    os.write(1, f"PY component up {time.clock_gettime(time.CLOCK_MONOTONIC):.3f}\n".encode())
    time.sleep(1000)
