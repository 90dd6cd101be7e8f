{{/* Names. Templates that differ by component take (dict "root" $ "component" "serving"). */}}

{{- define "data-alchemy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "data-alchemy.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "data-alchemy.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "data-alchemy.componentName" -}}
{{- printf "%s-%s" (include "data-alchemy.fullname" .root) .component -}}
{{- end -}}

{{- define "data-alchemy.selectorLabels" -}}
app.kubernetes.io/name: {{ include "data-alchemy.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "data-alchemy.labels" -}}
{{ include "data-alchemy.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "data-alchemy.metadata" -}}
name: {{ include "data-alchemy.componentName" . }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "data-alchemy.labels" . | nindent 2 }}
{{- end -}}

{{/* An image of this project; `image` is pipeline or serving. */}}
{{- define "data-alchemy.image" -}}
{{- $image := index .root.Values.image .image -}}
{{- printf "%s:%s" $image.repository (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}

{{/* The one required value, with what to do when it is not there. */}}
{{- define "data-alchemy.secretName" -}}
{{- $name := (.Values.secrets | default dict).existingSecret -}}
{{- if not $name -}}
{{- fail "secrets.existingSecret is not set. Create a Secret with the keys listed in values.yaml (the chart's README has the command) and pass --set secrets.existingSecret=NAME. The chart has no default secret on purpose." -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* One environment variable from a Secret: (dict "name" "ALCHEMY_SALT" "secret" NAME "key" KEY "optional" true) */}}
{{- define "data-alchemy.secretEnv" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ default .name .key }}
      {{- if .optional }}
      optional: true
      {{- end }}
{{- end -}}

{{/* Security of every pod; `user` is the uid its image expects. */}}
{{- define "data-alchemy.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "data-alchemy.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The uid of docker/Dockerfile and of the official Valkey and Postgres images. */}}
{{- define "data-alchemy.appUser" -}}10001{{- end -}}
{{- define "data-alchemy.databaseUser" -}}999{{- end -}}

{{- define "data-alchemy.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* nodeSelector and tolerations, with the GPU's when `gpus` is above zero. */}}
{{- define "data-alchemy.scheduling" -}}
{{- $values := .root.Values -}}
{{- $nodeSelector := $values.nodeSelector -}}
{{- $tolerations := $values.tolerations -}}
{{- if gt (int .gpus) 0 -}}
{{- $nodeSelector = merge (deepCopy $values.gpu.nodeSelector) $nodeSelector -}}
{{- $tolerations = concat $tolerations $values.gpu.tolerations -}}
{{- end -}}
{{- with $nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Requests and limits, with the GPU in both when `gpus` is above zero (Kubernetes wants them equal). */}}
{{- define "data-alchemy.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- if gt (int .gpus) 0 -}}
{{- $_ := set $resources.requests .root.Values.gpu.resource (int .gpus) -}}
{{- $_ := set $resources.limits .root.Values.gpu.resource (int .gpus) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* Environment of everything that loads this project's code: profile, secrets, store, state server, models. */}}
{{- define "data-alchemy.env" -}}
{{- $secret := include "data-alchemy.secretName" . -}}
{{- $storeSecret := default $secret .Values.store.existingSecret -}}
- name: HOME
  value: /tmp
- name: ALCHEMY_PROFILE
  value: {{ .Values.profile | quote }}
- name: ALCHEMY_STORE
  value: {{ .Values.store.url | quote }}
{{- with .Values.store.endpoint }}
- name: S3_ENDPOINT
  value: {{ . | quote }}
{{- end }}
- name: AWS_REGION
  value: {{ .Values.store.region | quote }}
{{ include "data-alchemy.secretEnv" (dict "name" "AWS_ACCESS_KEY_ID" "secret" $storeSecret) }}
{{ include "data-alchemy.secretEnv" (dict "name" "AWS_SECRET_ACCESS_KEY" "secret" $storeSecret) }}
{{ include "data-alchemy.secretEnv" (dict "name" "ALCHEMY_SALT" "secret" $secret) }}
{{ include "data-alchemy.secretEnv" (dict "name" "ALCHEMY_API_KEY" "secret" $secret) }}
{{ include "data-alchemy.secretEnv" (dict "name" "ALCHEMY_JWT_SECRET" "secret" $secret) }}
{{ include "data-alchemy.redisEnv" . }}
- name: ALCHEMY_CACHE
  value: /var/lib/alchemy/cache
- name: ALCHEMY_MODELS
  value: /var/lib/alchemy/models
- name: HF_HOME
  value: /var/lib/alchemy/models/huggingface
{{- /* Python counts the node's cores, not the pod's share of them. */}}
{{- range list "ALCHEMY_WORKERS" "OMP_NUM_THREADS" }}
- name: {{ . }}
  valueFrom:
    resourceFieldRef:
      resource: limits.cpu
      divisor: "1"
{{- end }}
{{- if .Values.models.catalog }}
- name: ALCHEMY_CATALOG
  value: /etc/alchemy/models.yaml
{{- end }}
{{ include "data-alchemy.secretEnv" (dict "name" "DEEPSEEK_API_KEY" "secret" $secret "optional" true) }}
{{- with .Values.llm.baseUrl }}
- name: DEEPSEEK_BASE_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* REDIS_URL; $(VALKEY_PASSWORD) is filled in by the kubelet, so the password is in no manifest. */}}
{{- define "data-alchemy.redisEnv" -}}
{{- $secret := include "data-alchemy.secretName" . -}}
{{- if .Values.valkey.enabled -}}
{{ include "data-alchemy.secretEnv" (dict "name" "VALKEY_PASSWORD" "secret" $secret) }}
- name: REDIS_URL
  value: redis://:$(VALKEY_PASSWORD)@{{ include "data-alchemy.componentName" (dict "root" . "component" "valkey") }}:6379/0
{{- else if .Values.redis.urlFromSecret -}}
{{ include "data-alchemy.secretEnv" (dict "name" "REDIS_URL" "secret" $secret) }}
{{- else -}}
- name: REDIS_URL
  value: {{ required "valkey.enabled is false: give redis.url, or put REDIS_URL into the Secret and set redis.urlFromSecret=true" .Values.redis.url | quote }}
{{- end -}}
{{- end -}}

{{/*
What a read-only root file system leaves to be mounted: /tmp, local copies of the index and other artifacts, the
weights, and models.yaml.
*/}}
{{- define "data-alchemy.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
- name: cache
  mountPath: /var/lib/alchemy/cache
- name: models
  mountPath: /var/lib/alchemy/models
{{- if .Values.models.catalog }}
- name: catalog
  mountPath: /etc/alchemy
  readOnly: true
{{- end }}
{{- end -}}

{{/* Takes root, tmpSize and cacheSize. */}}
{{- define "data-alchemy.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .tmpSize }}
- name: cache
  emptyDir:
    sizeLimit: {{ .cacheSize }}
- name: models
  {{- if .root.Values.models.existingClaim }}
  persistentVolumeClaim:
    claimName: {{ .root.Values.models.existingClaim }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .root.Values.models.cacheSize }}
  {{- end }}
{{- if .root.Values.models.catalog }}
- name: catalog
  configMap:
    name: {{ include "data-alchemy.componentName" (dict "root" .root "component" "models") }}
{{- end }}
{{- end -}}

{{/* The one claim of a stateful component. */}}
{{- define "data-alchemy.dataClaim" -}}
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata:
    name: data
  spec:
    accessModes: [ReadWriteOnce]
    {{- with .storageClass }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests:
        storage: {{ .size }}
{{- end -}}
