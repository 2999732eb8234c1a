#!/usr/bin/env bash
# The first minute: a lab, the main job, and what to try next. Called by `make up`.
set -euo pipefail
api=$1
began=$(date +%s.%N)
echo "starting a lab: one site, a server, three hosts, an outside"
bin/yakumo lab up --hosts 3 --api "$api"
echo "the main job: two guests on two hosts, and a way outside"
bin/yakumo lab demo
printf '\nLab, guests and ping took %.1f s.\n' "$(echo "$(date +%s.%N) - $began" | bc 2>/dev/null || awk "BEGIN{print $(date +%s.%N) - $began}")"
cat <<TXT

The cloud is running. API: http://$api (Keystone at http://$api/identity/v3)
Credentials: .yakumo/openrc and .yakumo/clouds.yaml

Try (the client: apt-get install python3-openstackclient):
  . .yakumo/openrc
  openstack server list --long
  openstack console log show demo-2
  openstack server create --image yakumo-mini --flavor m1.nano --network demo --wait mine
  openstack server event list mine
  openstack floating ip list
  bin/yakumo lab exec outside -- ping -c 3 ADDRESS      # of that list
  bin/yakumo lab status
End it with: make down
TXT
