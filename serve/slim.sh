#!/bin/sh
# Takes out of a folder of packages what no answer of the service needs: sh serve/slim.sh FOLDER
# The Dockerfile runs it, and a test that lets the service answer from what is left.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"

# Tests, build tools, an ORM, other databases, and what numpy loads only for who asks for it.
# `numpy.ma` stays: `np.unique` asks.
find numpy -depth -type d \( -name tests -o -name testing \) -exec rm -rf {} +
(cd numpy && rm -rf f2py distutils random fft polynomial _core/_simd*.so _core/*_tests*.so \
  _core/lib)
(cd sqlalchemy && rm -rf testing orm ext dialects/mysql dialects/mssql dialects/oracle)
rm -rf bin cffi pycparser ./*.dist-info/sboms ./*.dist-info/RECORD
find . -type f \( -name '*.pyi' -o -name '*.pxd' -o -name '*.pyx' -o -name '*.c' -o -name '*.h' \
  -o -name '*_cy.py' \) -delete

# Symbols that only a debugger reads: of PyNaCl four fifths. Libraries in *.libs were patched after
# they were linked, and `strip` would break them.
find numpy sqlalchemy msgspec nacl psycopg_binary taxi_duration -name '*.so' \
  -exec strip --strip-unneeded {} +

sh "$here/system_libraries.sh" .

# Other people's packages are kept as bytecode, without docstrings. Of a stack trace in them the
# numbers of lines are left, and no text; our own code keeps its sources.
python -m compileall -q -b -o 2 -j 0 -x '^\./taxi_duration' .
find . -path ./taxi_duration -prune -o -name '*.py' -exec rm {} +
