# shellcheck shell=bash
# Makes the certificates, keys and kubeconfigs of the cluster in $pki, and
# those of the TLS registry. Kept until the folder is removed.

pki=$state_dir/pki

# cert NAME SUBJECT [SUBJECT_ALT_NAMES]: signed by the CA named $ca, or else the
# cluster's.
cert() {
  local name=$1 by=${ca:-ca} ext=basicConstraints=CA:FALSE
  [ -z "${3:-}" ] || ext+=$'\n'"subjectAltName=$3"
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -keyout "$pki/$name.key" -out "$pki/$name.csr" -subj "$2" 2>/dev/null
  openssl x509 -req -in "$pki/$name.csr" -CA "$pki/$by.crt" -CAkey "$pki/$by.key" \
    -set_serial "0x$(openssl rand -hex 8)" -days 3650 -extfile <(echo "$ext") \
    -out "$pki/$name.crt" 2>/dev/null
  rm "$pki/$name.csr"
}

# user NAME SUBJECT: a certificate and a kubeconfig around it.
user() {
  cert "$1" "$2"
  cat >"$pki/$1.conf" <<END
apiVersion: v1
kind: Config
current-context: windlass-test
clusters:
- name: windlass-test
  cluster:
    server: https://$node_ip:6443
    certificate-authority-data: $(base64 -w0 <"$pki/ca.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 <"$pki/$1.crt")
    client-key-data: $(base64 -w0 <"$pki/$1.key")
contexts:
- name: windlass-test
  context: {cluster: windlass-test, user: $1}
END
}

make_ca() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -keyout "$pki/$1.key" -out "$pki/$1.crt" -subj "/CN=$2" -days 3650 2>/dev/null
}

make_pki() {
  [ ! -e "$pki/done" ] || return 0
  say "making keys and certificates"
  rm -rf "$pki"
  (
    umask 077
    mkdir -p "$pki"
    make_ca ca windlass-test-ca
    local svc=kubernetes.default.svc
    cert apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:$svc,DNS:$svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$service_ip,IP:$node_ip"
    cert kubelet-serving "/O=system:nodes/CN=system:node:$node_name" "DNS:$node_name,IP:$node_ip,IP:127.0.0.1"
    cert kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
    user admin /O=system:masters/CN=admin
    user controller-manager /CN=system:kube-controller-manager
    user scheduler /CN=system:kube-scheduler
    user kube-proxy /CN=system:kube-proxy
    user coredns /CN=system:coredns
    user kubelet "/O=system:nodes/CN=system:node:$node_name"
    openssl genrsa -out "$pki/sa.key" 2048 2>/dev/null
    openssl rsa -in "$pki/sa.key" -pubout -out "$pki/sa.pub" 2>/dev/null

    # The registry has a CA of its own: trusting the cluster's must not do.
    make_ca registry-ca windlass-test-registry-ca
    ca=registry-ca cert registry /CN=registry.windlass.test "DNS:registry.windlass.test,DNS:localhost,IP:127.0.0.1"
    htpasswd -Bbn "$demo_user" "$demo_password" >"$pki/htpasswd" 2>/dev/null
    touch "$pki/done"
  )
}
