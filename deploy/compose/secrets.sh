#!/bin/sh
# Creates secrets in ./secrets as far as it can, and lists those that you have to
# add. Running it again keeps existing files.
set -eu
cd "$(dirname "$0")"
# Only the owner can enter the directory. The files are world-readable, because
# containers see the files without the directory, and read them as other users.
mkdir -p secrets
chmod 700 secrets
umask 022

# make NAME COMMAND…: the output of COMMAND becomes the secret.
make() {
  name=$1
  shift
  if [ ! -s "secrets/$name" ]; then
    "$@" >"secrets/.$name"
    mv "secrets/.$name" "secrets/$name"
    echo "created  secrets/$name"
  fi
}

# The default user has a password instead of being off: many versions of Redis
# lose all transactions in their append-only file when they start with the default
# user off (docs/redis.md).
acl() {
  sum() { tr -d '\n' <"secrets/$1" | openssl dgst -sha256 -r | cut -d' ' -f1; }
  echo "user default on #$(sum redis_admin_password) ~* &* +@all"
  echo "user wxproxy on #$(sum redis_password) ~wxproxy:* -@all +@read +@write +@scripting +@connection -@dangerous +info"
}

command -v openssl >/dev/null || { echo "secrets.sh: openssl not found" >&2; exit 1; }
make store_key openssl rand -base64 32
make redis_password openssl rand -hex 24
make redis_admin_password openssl rand -hex 24
make redis.acl acl
make admin_key openssl rand -hex 24

missing=0
for name in appsecret message_token message_key tls.pem; do
  if [ ! -s "secrets/$name" ]; then
    missing=1
    echo "MISSING  secrets/$name"
  fi
done
if [ "$missing" = 1 ]; then
  cat <<'END'

appsecret, message_token and message_key are on your platform's page at open.weixin.qq.com (管理中心 > 第三方平台 > 详情);
tls.pem is the certificate chain, followed by the private key, for the host name that WeChat pushes to.
Make the files world-readable (chmod 644), because containers read them as other users. The directory is not.
Keep a copy of store_key elsewhere: without it, the data in the Redis is lost.
END
  exit 1
fi
echo "complete"
