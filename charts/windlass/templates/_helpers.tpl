{{- define "windlass.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "windlass.labels" -}}
app.kubernetes.io/name: windlass
app.kubernetes.io/part-of: windlass
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Whether the artifact server runs: it keeps what goes into a directory or S3. */}}
{{- define "windlass.artifactServer" -}}
{{- if has .Values.artifacts.store.kind (list "directory" "s3") }}yes{{ end }}
{{- end }}

{{- define "windlass.podIdentity" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- end }}

{{/* What malloc is told. Buffers of layers have some MiB: glibc would keep them after their first use. With a threshold
that is set it maps each by itself, and gives it back. tests/it/fast/registry/memory.rs measures it with this line. */}}
{{- define "windlass.malloc" -}}
- {name: MALLOC_MMAP_THRESHOLD_, value: "131072"}
{{- end }}
