#!/bin/sh
# links_no_engine.sh PROGRAM: fails where it holds code of the engine or needs a device library; 77 (skipped) without nm.
command -v nm >/dev/null || { echo "skipped: no nm here (package binutils)"; exit 77; }
if nm -C "$1" | grep -E ' qwenbench::(engine|backend|comm|graph|model|quality|measure)::' | head -n 5 | grep .; then
  echo "$1 holds code of the engine"
  exit 1
fi
if ldd "$1" | grep -iE 'cuda|cublas|nccl'; then
  echo "$1 needs a device library"
  exit 1
fi
echo "no engine, no device library"
