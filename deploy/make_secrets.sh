#!/bin/sh
# Makes what docker-compose.yml mounts as secrets, in deploy/secrets (or in the folder that is given). Passwords and keys that are there stay as they are.
# The folder is yours alone (0700). The files in it are readable, because each container reads them as a user of its own.
set -eu

deploy=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$deploy/secrets}
mkdir -p "$folder"
chmod 0700 "$folder"
cd "$folder"

random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
# usage: keep NAME TEXT - writes the file unless it is there
keep() {
    if [ ! -e "$1" ]; then
        printf '%s' "$2" >"$1"
        chmod 0444 "$1"
    fi
}

keep ledger_password "$(random 24)"
keep grafana_password "$(random 12)"
keep ledger_url "postgresql+psycopg://veriframe:$(cat ledger_password)@ledger:5432/veriframe"

# one user of the broker per role; broker_users holds hashes only and follows deploy/broker/users.acl
hashes=""
for role in producer api ingest janitor worker exporter; do
    keep "broker_password_$role" "$(random 24)"
    keep "broker_url_$role" "redis://$role:$(cat "broker_password_$role")@broker:6379/0"
    hash=$(printf '%s' "$(cat "broker_password_$role")" | sha256sum | cut -d' ' -f1)
    hashes="$hashes s/#$(echo "$role" | tr '[:lower:]' '[:upper:]')_SHA256/#$hash/;"
done
sed "$hashes" "$deploy/broker/users.acl" >broker_users.new
chmod 0444 broker_users.new
mv -f broker_users.new broker_users
rm -f broker_exporter # follows its user's password
keep broker_exporter "{\"redis://exporter@broker:6379\": \"$(cat broker_password_exporter)\"}"

# signs the sessions of the review pages
keep web_secret "$(random 32)"

keep webhook_secret "whsec_$(random 16 | base64 | tr -d "\n")"

if [ ! -e api_key ]; then
    printf '%s' "$(random 32)" >api_key
    chmod 0400 api_key
fi
keep api_keys "[\"submit,read,review:$(printf '%s' "$(cat api_key)" | sha256sum | cut -d' ' -f1)\"]"

if [ ! -e s3_credentials ]; then
    access=$(random 10)
    secret=$(random 20)
    keep s3_credentials "[default]
aws_access_key_id = $access
aws_secret_access_key = $secret
"
    rm -f s3_config
    keep s3_config "{\"identities\": [{\"name\": \"veriframe\", \"credentials\": [{\"accessKey\": \"$access\", \"secretKey\": \"$secret\"}], \"actions\": [\"Admin\", \"Read\", \"Write\", \"List\", \"Tagging\"]}]}"
fi

echo "secrets are in $(pwd); the API key is in api_key, Grafana's password for the user admin in grafana_password"
