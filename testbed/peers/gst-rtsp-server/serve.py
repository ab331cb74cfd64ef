#!/usr/bin/python3
"""GStreamer's RTSP server as a peer to measure against: serves the MP4 files (H.264, AAC) of a folder.

Each file is a mount point of its own name, each client gets a pipeline of its own (nothing is shared, as in video on demand), and nothing is
recoded. Prints `ready: rtsp=ADDRESS` when it listens.
"""

import argparse
import pathlib
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def launch(path, audio):
    line = f'( filesrc location="{path}" ! qtdemux name=d d.video_0 ! queue ! h264parse ! rtph264pay name=pay0 pt=96'
    if audio:
        line += " d.audio_0 ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97"
    return line + " )"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--media", required=True)
    arguments.add_argument("--port", default="0")
    arguments.add_argument("--audio", action="store_true", help="the files have an AAC track too")
    options = arguments.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(options.port)
    server.set_backlog(1024)
    mounts = server.get_mount_points()
    for path in sorted(pathlib.Path(options.media).glob("*.mp4")):
        factory = GstRtspServer.RTSPMediaFactory.new()
        factory.set_launch(launch(path.resolve(), options.audio))
        factory.set_shared(False)
        mounts.add_factory("/" + path.name, factory)
    if server.attach(None) == 0:
        sys.exit("cannot listen")
    loop = GLib.MainLoop()
    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGTERM, loop.quit)
    # Sessions whose client is gone must not stay.
    GLib.timeout_add_seconds(10, lambda: server.get_session_pool().cleanup() >= 0)
    print(f"ready: rtsp=127.0.0.1:{server.get_bound_port()}", flush=True)
    loop.run()


main()
