{{/* Names and labels. */}}
{{- define "netverdict.name" -}}
{{- if contains "netverdict" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-netverdict" (.Release.Name | trunc 40 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "netverdict.labels" -}}
{{ include "netverdict.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: netverdict
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "netverdict.selector" -}}
app.kubernetes.io/name: netverdict
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "netverdict.image" -}}
image: {{ printf "%s/%s:%s" .root.Values.image.registry .name (.root.Values.image.tag | default .root.Chart.AppVersion) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- end }}

{{- define "netverdict.secret" -}}
{{- .Values.secret.existing | default (include "netverdict.name" .) }}
{{- end }}

{{/* Secrets with certificates; empty: clear text. */}}
{{- define "netverdict.collectorTls" -}}
{{- if ne .Values.tls.certificates "none" }}{{ .Values.collector.tls.secretName | default (printf "%s-collector-tls" (include "netverdict.name" .)) }}{{ end }}
{{- end }}

{{- define "netverdict.queryTls" -}}
{{- if ne .Values.tls.certificates "none" }}{{ .Values.query.tls.secretName | default (printf "%s-query-tls" (include "netverdict.name" .)) }}{{ end }}
{{- end }}

{{/* Room for the copies and what a file takes beyond its bytes. */}}
{{- define "netverdict.copies" -}}
{{- printf "%dGi" (add (int .Values.query.storage.limit) 1) }}
{{- end }}

{{/* HOST and PORT as one address. */}}
{{- define "netverdict.address" -}}
{{- if .root.Values.ipv6 }}{{ printf "[%s]:%v" .host .port }}{{ else }}{{ printf "%s:%v" .host .port }}{{ end }}
{{- end }}

{{- define "netverdict.onUnavailable" -}}
{{- .Values.cni.onUnavailable | default (eq .Values.mode "enforce" | ternary "fail" "allow") }}
{{- end }}

{{/* The node's own file system, for the containers that change its network configuration. */}}
{{- define "netverdict.cniMounts" -}}
- {name: cni-conf, mountPath: /host/cni/conf}
- {name: cni-bin, mountPath: /host/cni/bin}
{{- end }}

{{- define "netverdict.cniVolumes" -}}
- {name: cni-conf, hostPath: {path: {{ .Values.cni.confDir | quote }}, type: DirectoryOrCreate}}
- {name: cni-bin, hostPath: {path: {{ .Values.cni.binDir | quote }}, type: DirectoryOrCreate}}
{{- end }}
