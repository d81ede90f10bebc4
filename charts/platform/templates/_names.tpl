{{/* What every object of the release can be selected by. */}}
{{- define "platform.instanceLabels" -}}
app.kubernetes.io/name: platform
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What the pods of one component can be selected by. Takes (dict "root" $ "component" "..."). */}}
{{- define "platform.selector" -}}
{{ include "platform.instanceLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "platform.labels" -}}
{{ include "platform.instanceLabels" . }}
app.kubernetes.io/part-of: crispline
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
crispline.io/environment: {{ .Values.platform.environment | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Address of one of this release's Services. Takes (dict "root" $ "name" "..." "port" 5000). */}}
{{- define "platform.address" -}}
{{- printf "%s.%s.svc.%s:%d" .name .root.Release.Namespace .root.Values.clusterDomain (int .port) -}}
{{- end }}

{{/* Reference of one of crispline's images. Takes (dict "root" $ "image" .Values.images.<name>). */}}
{{- define "platform.image" -}}
{{- $images := .root.Values.images -}}
{{- $name := printf "%s/%s" (.image.registry | default $images.registry) .image.repository -}}
{{- if .image.digest }}{{ $name }}@{{ .image.digest }}{{ else }}{{ $name }}:{{ .image.tag | default $images.tag }}{{ end -}}
{{- end }}

{{/* Security of a pod: what the level `restricted` asks, unless the values say otherwise. Takes (dict "root" $ "user" 10001). */}}
{{- define "platform.podSecurity" -}}
{{- if kindIs "invalid" .root.Values.podSecurityContext -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: 0
fsGroup: {{ .user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- else -}}
{{ toYaml .root.Values.podSecurityContext }}
{{- end -}}
{{- end }}

{{- define "platform.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What the pods of all components have in common, from the service account's token to where they run. */}}
{{- define "platform.podCommon" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduling.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.scheduling.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduling.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduling.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Environment variables by which a process finds the object store. */}}
{{- define "platform.objectStoreVariables" -}}
{{- with .Values.objectStore.endpoint -}}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
{{- if hasPrefix "http://" . }}
- {name: AWS_ALLOW_HTTP, value: "true"}
{{- end }}
{{ end -}}
- {name: AWS_REGION, value: {{ .Values.objectStore.region | quote }}}
- {name: AWS_DEFAULT_REGION, value: {{ .Values.objectStore.region | quote }}}
{{- end }}

{{/* Port of the object store. */}}
{{- define "platform.objectStorePort" -}}
{{- $port := 443 -}}
{{- with .Values.objectStore.endpoint -}}
{{- $host := get (urlParse .) "host" -}}
{{- $port = ternary (regexFind "[0-9]+$" $host | int) (ternary 80 443 (hasPrefix "http://" .)) (regexMatch ":[0-9]+$" $host) -}}
{{- end -}}
{{- $port -}}
{{- end }}

{{/* Port of the online store, when it is a Redis. */}}
{{- define "platform.redisPort" -}}
{{- $host := get (urlParse (.Values.platform.online_store | default "redis://none")) "host" -}}
{{- ternary (regexFind "[0-9]+$" $host | int) 6379 (regexMatch ":[0-9]+$" $host) -}}
{{- end }}

{{/* Name of MLflow's claim; empty where it has none. */}}
{{- define "platform.mlflowClaim" -}}
{{- if or (not .Values.mlflow.database.existingSecret) .Values.mlflow.auth.existingSecret -}}
{{- .Values.mlflow.persistence.existingClaim | default "crispline-mlflow" -}}
{{- end -}}
{{- end }}

{{/* NetworkPolicy peers: the steps of pipelines. Argo Workflows labels their pods. */}}
{{- define "platform.stepPeers" -}}
{{- range .Values.pipelines.stepNamespaces }}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . }}}}
  podSelector: {matchExpressions: [{key: workflows.argoproj.io/workflow, operator: Exists}]}
{{- end }}
{{- end }}
