#!/bin/sh
# Makes the secrets that can be made, in ./secrets, and says which ones you have to bring. It may be run again: what is
# there stays as it is.
set -eu
cd "$(dirname "$0")"
# Only the owner gets into the folder. The files in it can be read by all, since the users of the containers, which see
# them but not the folder, are others.
mkdir -p secrets
chmod 700 secrets
umask 022

make() { # make NAME COMMAND…: the output of the command is the secret
  name=$1
  shift
  if [ ! -s "secrets/$name" ]; then
    "$@" >"secrets/.$name"
    mv "secrets/.$name" "secrets/$name"
    echo "made  secrets/$name"
  fi
}

# The default user has a password and is not off: many a Redis drops all transactions in its append-only file at a start
# with the default user off (docs/redis.md).
acl() {
  sum() { tr -d '\n' <"secrets/$1" | openssl dgst -sha256 -r | cut -d' ' -f1; }
  echo "user default on #$(sum redis_admin_password) ~* &* +@all"
  echo "user wxproxy on #$(sum redis_password) ~wxproxy:* -@all +@read +@write +@scripting +@connection -@dangerous +info"
}

command -v openssl >/dev/null || { echo "secrets.sh: openssl is needed" >&2; exit 1; }
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
tls.pem is the certificate chain, with the private key behind it, of the host name that WeChat pushes to.
The files have to be readable by all (chmod 644): containers read them as other users. The folder is not.
Keep a copy of store_key in another place: without it what is in the Redis cannot be read.
END
  exit 1
fi
echo "all there"
