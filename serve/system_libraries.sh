#!/bin/sh
# psycopg brings OpenSSL, Kerberos and more that the system has too. Its own are taken, if they have
# all that is asked of them: every symbol is looked up as they are loaded.
#   sh serve/system_libraries.sh FOLDER    the folder of packages; both images run it
set -eu
cd "$1"

cp -R psycopg_binary.libs psycopg_binary.own
for file in psycopg_binary.libs/*; do
  name=$(basename "$file" | sed 's/-[0-9a-f]*\(\.so\.[0-9]*\).*/\1/') # libssl-6a9b88ec.so.3: libssl.so.3
  system=$(ldconfig -p | awk -v name="$name" '$1 == name { print $NF; exit }')
  [ "$name" = libpq.so.5 ] || [ -z "$system" ] || ln -sf "$system" "$file"
done
if LD_BIND_NOW=1 PSYCOPG_IMPL=binary PYTHONPATH=. python -c 'import psycopg' 2>/dev/null; then
  rm -rf psycopg_binary.own
else
  rm -rf psycopg_binary.libs && mv psycopg_binary.own psycopg_binary.libs
fi
