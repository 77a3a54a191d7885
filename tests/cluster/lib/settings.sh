# shellcheck shell=bash
# Names, addresses and ports of the test cluster.

node_name=windlass-node
# An address on a bridge of our own: the same on every machine, reachable from
# pods and from this machine, and from nowhere else.
node_ip=10.245.0.1
node_link=windlass0
pod_cidr=10.244.0.0/24
service_cidr=10.96.0.0/16
service_ip=10.96.0.1
dns_ip=10.96.0.10
git_port=8418
ssh_port=2222

registry=127.0.0.1:5000
tls_registry=127.0.0.1:5001
# Tests start this one, and the service that hands out its tokens.
token_registry=127.0.0.1:5002
token_service=127.0.0.1:5003
demo_user=demo
demo_password=demo-password-7

# Where kubelets usually live: charts have it as their default.
kubelet_dir=/var/lib/kubelet
run_dir=/run/windlass # short: paths of Unix sockets have 107 characters
docker_sock=/run/docker.sock
cri_sock=$run_dir/cri.sock
admin_conf=$state_dir/pki/admin.conf
conf_dir=$state_dir/conf
